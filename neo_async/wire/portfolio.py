"""Decode positions, holdings, limits and margin."""

from __future__ import annotations

import msgspec

from neo_async.errors import ProtocolError
from neo_async.model.answer import Answer
from neo_async.model.portfolio import Holding, Limits, OrderMargin, PositionRow
from neo_async.wire.answers import failure, shown
from neo_async.wire.rows import RowReader, number, read_object

_POSITIONS = RowReader(
    PositionRow,
    expected=frozenset(
        {
            "buy_quantity",
            "sell_quantity",
            "buy_value",
            "sell_value",
            "carried_buy_quantity",
            "carried_sell_quantity",
            "carried_buy_value",
            "carried_sell_value",
        }
    ),
)
_HOLDINGS = RowReader(Holding)

_VERDICTS = {"ok": True, "not_ok": False, "notok": False, "79": True, "78": False}
"""Values of `rmsVldtd`; old servers send the character code of the first letter of OK or NOT_OK."""


class LimitsForm(msgspec.Struct):
    """Form of `POST /quick/user/limits`. The official SDK only sends ALL."""

    seg: str = "ALL"
    exch: str = "ALL"
    prod: str = "ALL"


class MarginForm(msgspec.Struct):
    """Form of `POST /quick/user/check-margin`, for one order."""

    exSeg: str  # noqa: N815 - the wire's names
    prcTp: str  # noqa: N815
    prod: str
    trnsTp: str  # noqa: N815
    prc: str
    qty: str
    tok: str
    trgPrc: str  # noqa: N815
    brkName: str = "KOTAK"  # noqa: N815
    brnchId: str = "ONLINE"  # noqa: N815


def read_positions(answer: Answer) -> list[PositionRow]:
    """Return the rows of `GET /portfolio/v2/positions` or `/quick/user/positions`."""
    return _POSITIONS.read(answer)


def read_holdings(answer: Answer) -> list[Holding]:
    """Return the rows of `GET /portfolio/v1/holdings`."""
    return _HOLDINGS.read(answer)


def read_limits(answer: Answer) -> Limits:
    """Return the answer of `POST /quick/user/limits`."""
    content = read_object(answer)
    if "Net" not in content:
        raise failure(answer, lacking="Net")
    amounts = _Amounts(content)
    return Limits(
        available=amounts["Net"],
        margin_used=amounts["MarginUsed"],
        collateral_value=amounts["CollateralValue"],
        collateral=amounts["Collateral"],
        adhoc_margin=amounts["AdhocMargin"],
        notional_cash=amounts["NotionalCash"],
        pay_in=amounts["RmsPayInAmt"],
        pay_out=amounts["RmsPayOutAmt"],
        unrealised_mtm=amounts["UnrealizedMtomPrsnt"],
        realised_mtm=amounts["RealizedMtomPrsnt"],
        span_margin=amounts["SpanMarginPrsnt"],
        exposure_margin=amounts["ExposureMarginPrsnt"],
        premium=amounts["PremiumPrsnt"],
        var_margin=amounts["MarginVarPrsnt"],
        special_margin=amounts["SpecialMarginPrsnt"],
        used_percent=amounts["MarginWarningPrcntPrsnt"],
        category=str(content.get("Category") or ""),
        amounts=_amounts(content),
        odd=tuple(amounts.odd),
    )


def read_margin(answer: Answer) -> OrderMargin:
    """Return the answer of `POST /quick/user/check-margin`."""
    content = read_object(answer)
    if "rmsVldtd" not in content:
        raise failure(answer, lacking="rmsVldtd")
    verdict = content["rmsVldtd"]
    sufficient = _VERDICTS.get(str(verdict).strip().lower())
    if sufficient is None:
        raise ProtocolError(
            f"rmsVldtd={shown(verdict)} is none of OK, NOT_OK, 79, 78",
            status=answer.status,
        )
    amounts = _Amounts(content)
    return OrderMargin(
        sufficient=sufficient,
        available=amounts["avlCash"],
        used=amounts["mrgnUsd"],
        order=amounts["ordMrgn"],
        required=amounts["totMrgnUsd"],
        shortfall=amounts["insufFund"],
        odd=tuple(amounts.odd),
    )


class _Amounts:
    """The numbers of an object by the broker's names: None for a missing or unreadable one.
    Unreadable values are in `odd`."""

    def __init__(self, content: dict[str, object]) -> None:
        self._content = content
        self.odd: list[str] = []

    def __getitem__(self, name: str) -> float | None:
        try:
            return number(self._content, name)
        except ProtocolError as error:
            self.odd.append(error.problem)
            return None


def _amounts(content: dict[str, object]) -> dict[str, float]:
    """Return every key with a number, under the broker's own name."""
    amounts = {}
    for name in content:
        try:
            value = number(content, name)
        except ProtocolError:
            continue  # text, such as the entity
        if value is not None:
            amounts[name] = value
    return amounts
