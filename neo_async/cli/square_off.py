"""`neo-async square-off`: positions closed at the market, after a look at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer

import neo_async
from neo_async.cli import output
from neo_async.cli.connection import Account, Fresh
from neo_async.cli.output import NOTHING, AsCsv, AsJson, Cell, money, profit, units
from neo_async.cli.parameters import choice_option, seconds
from neo_async.cli.prompts import Yes, confirm, interruption_reported
from neo_async.cli.table_layout import Column
from neo_async.client import NeoClient
from neo_async.config import ConnectionSettings
from neo_async.errors import NeoError, PositionOpen
from neo_async.exits.square_off import TIMEOUT_SECONDS, Selection
from neo_async.model.enums import Product, Segment
from neo_async.model.portfolio import Holding, Position, SquaredOff
from neo_async.portfolio.position_rows import position_key

FIELDS = ("segment", "symbol", "product", "closed", "left", "orders", "reason")
"""Columns of the outcomes in CSV."""

_CONNECTIONS = ConnectionSettings()
"""Positions are closed at once, and large ones in several orders."""


class _Found(NamedTuple):
    positions: list[Position]
    """Those that are not flat, or whose quantity is not known."""
    holdings: list[Holding]

    @property
    def segments(self) -> set[str]:
        """Segments whose scrip masters are needed: for freeze quantities, and symbols of
        holdings."""
        found = {one.segment for one in self.positions} | {one.segment for one in self.holdings}
        return {segment.strip().lower() for segment in found}


def square_off(
    symbol: Annotated[
        str | None, typer.Option(metavar="SYMBOL", help="Only this trading symbol.")
    ] = None,
    segment: Annotated[
        Segment | None,
        choice_option(Segment, "--segment", metavar="SEGMENT", help="Only this segment:"),
    ] = None,
    product: Annotated[
        Product | None,
        choice_option(Product, "--product", metavar="PRODUCT", help="Only this product:"),
    ] = None,
    holdings: Annotated[
        bool, typer.Option("--holdings", help="Sell the delivery stock as well.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            parser=seconds(1),
            help="Time after which a position that is still open is reported.",
        ),
    ] = TIMEOUT_SECONDS,
    yes: Yes = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Close positions at the market: all of the account, or those that are chosen.

    Orders that are open in a position are cancelled first, stops included. Exit code 1 when
    anything is left.

    neo-async square-off --product MIS
    """
    which = Selection(segment, symbol, product)
    account = Account()

    found = account.read(lambda neo: _find(neo, which, holdings=holdings), fresh=fresh)
    if not found.positions and not found.holdings:
        output.print_sentence(f"nothing is open in {account}{_chosen(which)}", err=True)
        _report([], as_json=as_json, as_csv=as_csv)
        return
    lines = [*map(_describe, found.positions), *map(_describe_holding, found.holdings)]
    confirm(lines, account, yes=yes, question="Close all of it at the market?")

    async def close() -> list[SquaredOff | NeoError]:
        async with account.connect(connections=_CONNECTIONS) as neo:
            await _load(neo, found.segments)
            with interruption_reported("closing orders", "neo-async positions"):
                return await neo.portfolio.square_off(
                    segment=segment,
                    symbol=symbol,
                    product=product,
                    holdings=holdings,
                    timeout=timeout,
                )

    results = neo_async.run(close())
    _report(results, as_json=as_json, as_csv=as_csv)
    if any(isinstance(result, NeoError) for result in results):
        raise typer.Exit(1)


async def _find(neo: NeoClient, which: Selection, *, holdings: bool) -> _Found:
    positions = [
        one
        for one in await neo.portfolio.positions()
        if one.net_quantity != 0
        and which.includes(position_key(one.segment, one.symbol, one.product))
    ]
    held: list[Holding] = []
    if holdings:
        held = [
            one
            for one in await neo.portfolio.holdings()
            if one.sellable_quantity and which.may_include(one)
        ]
    return _Found(positions, held)


async def _load(neo: NeoClient, segments: set[str]) -> None:
    """Load scrip masters. Without one, an order above the freeze quantity is refused, and the rest
    is closed."""
    for segment in sorted(segments):
        try:
            await neo.instruments.load(Segment(segment))
        except (ValueError, NeoError) as error:
            output.print_sentence(f"no scrip master of {segment}: {error}", err=True)


def _chosen(which: Selection) -> str:
    names = [str(one) for one in which if one is not None]
    return f" of {', '.join(names)}" if names else ""


def _describe(position: Position) -> str:
    net = position.net_quantity
    what = "close" if net is None else "sell" if net > 0 else "buy"
    return (
        f"{what} {units(None if net is None else abs(net))} {position.symbol} "
        f"({position.segment}) {position.product}, last {money(position.last_price)}, "
        f"P&L {profit(position.pnl).text}"
    )


def _describe_holding(holding: Holding) -> str:
    return (
        f"sell {units(holding.sellable_quantity)} {holding.symbol} ({holding.segment}) of the "
        f"delivery stock, close {money(holding.closing_price)}"
    )


# --- the outcome ----------------------------------------------------------------------------------


def _report(results: Sequence[SquaredOff | NeoError], *, as_json: bool, as_csv: bool) -> None:
    if not results and not as_json and not as_csv:
        return
    output.print_report(
        results,
        _print_outcomes,
        empty="",
        columns=FIELDS,
        fields=_fields,
        as_json=as_json,
        as_csv=as_csv,
    )


def _fields(result: SquaredOff | NeoError) -> dict[str, Any]:
    """Return an outcome for JSON and CSV."""
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    if isinstance(result, SquaredOff):
        closed = {"closed": result.quantity, "left": 0, "orders": list(result.orders)}
        return fields | _place(result) | closed
    if isinstance(result, PositionOpen):
        return fields | _place(result) | {"left": result.net, "reason": result.reason}
    return fields | {"reason": str(result)}


def _place(result: SquaredOff | PositionOpen) -> dict[str, str]:
    return {"segment": result.segment, "symbol": result.symbol, "product": result.product}


def _print_outcomes(results: Sequence[SquaredOff | NeoError]) -> None:
    columns = (
        Column("Symbol", is_whole=True),
        Column("Segment", rank=2),
        Column("Product", rank=1),
        Column("Closed", is_number=True),
        Column("Left", is_number=True),
        Column("Orders", comfortable=15, rank=3),
    )
    known = [one for one in results if isinstance(one, SquaredOff | PositionOpen)]
    if known:
        output.print_table(columns, map(_row, known))
    for result in results:
        if isinstance(result, NeoError):
            output.print_sentence(f"neo-async: {result}", err=True)


def _row(result: SquaredOff | PositionOpen) -> Sequence[str | Cell]:
    place = (result.symbol, result.segment, result.product)
    if isinstance(result, SquaredOff):
        return (*place, units(result.quantity), "0", " ".join(result.orders) or NOTHING)
    return (*place, NOTHING, Cell(units(result.net), "red"), NOTHING)
