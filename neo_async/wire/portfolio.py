"""Positions, holdings, limits and margin, from bytes to structs."""

from __future__ import annotations

import reprlib

import msgspec

from neo_async.errors import ProtocolError
from neo_async.model.answer import Answer
from neo_async.model.portfolio import Holding, Limits, OrderMargin, PositionRow
from neo_async.wire.rows import RowReader, number, read_object

# A last price that cannot be read leaves the position without a valuation, not without a row.
_POSITIONS = RowReader(PositionRow, optional=frozenset({"ltp"}))
_HOLDINGS = RowReader(Holding)

_VERDICTS = {"ok": True, "not_ok": False, "notok": False, "79": True, "78": False}
"""`rmsVldtd`; old servers send the code of the first letter of OK or NOT_OK."""


class LimitsForm(msgspec.Struct):
    """`POST /quick/user/limits`. The official SDK asks for nothing but ALL."""

    seg: str = "ALL"
    exch: str = "ALL"
    prod: str = "ALL"


class MarginForm(msgspec.Struct):
    """`POST /quick/user/check-margin`, one order a call."""

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
    """`GET /portfolio/v2/positions` or `/quick/user/positions`."""
    return _POSITIONS.read(answer)


def read_holdings(answer: Answer) -> list[Holding]:
    """`GET /portfolio/v1/holdings`."""
    return _HOLDINGS.read(answer)


def read_limits(answer: Answer) -> Limits:
    """`POST /quick/user/limits`."""
    content = read_object(answer)
    return Limits(
        available=_required(content, "Net"),
        margin_used=number(content, "MarginUsed"),
        collateral_value=number(content, "CollateralValue"),
        collateral=number(content, "Collateral"),
        adhoc_margin=number(content, "AdhocMargin"),
        notional_cash=number(content, "NotionalCash"),
        pay_in=number(content, "RmsPayInAmt"),
        pay_out=number(content, "RmsPayOutAmt"),
        unrealised_mtm=number(content, "UnrealizedMtomPrsnt"),
        realised_mtm=number(content, "RealizedMtomPrsnt"),
        span_margin=number(content, "SpanMarginPrsnt"),
        exposure_margin=number(content, "ExposureMarginPrsnt"),
        premium=number(content, "PremiumPrsnt"),
        var_margin=number(content, "MarginVarPrsnt"),
        special_margin=number(content, "SpecialMarginPrsnt"),
        used_percent=number(content, "MarginWarningPrcntPrsnt"),
        category=str(content.get("Category") or ""),
        amounts=_amounts(content),
    )


def read_margin(answer: Answer) -> OrderMargin:
    """`POST /quick/user/check-margin`."""
    content = read_object(answer)
    verdict = content.get("rmsVldtd")
    sufficient = _VERDICTS.get(str(verdict).strip().lower())
    if sufficient is None:
        raise ProtocolError(
            f"rmsVldtd={reprlib.repr(verdict)} is none of OK, NOT_OK, 79, 78",
            status=answer.status,
        )
    return OrderMargin(
        sufficient=sufficient,
        available=_required(content, "avlCash"),
        used=_required(content, "mrgnUsd"),
        order=_required(content, "ordMrgn"),
        required=_required(content, "totMrgnUsd"),
        shortfall=_required(content, "insufFund"),
    )


def _required(content: dict[str, object], name: str) -> float:
    value = number(content, name)
    if value is None:
        raise ProtocolError(f"{name} is missing")
    return value


def _amounts(content: dict[str, object]) -> dict[str, float]:
    """Every key that holds a number, under the broker's own spelling."""
    amounts = {}
    for name in content:
        try:
            value = number(content, name)
        except ProtocolError:
            continue  # text, such as the entity
        if value is not None:
            amounts[name] = value
    return amounts
