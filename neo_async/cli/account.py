"""Commands for the login and the reports of the account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import typer

import neo_async
from neo_async.cli import output
from neo_async.cli.connection import Account, Fresh, forget_logins, mode_of
from neo_async.cli.output import AsCsv, AsJson, amount_cell, limit_price, money, profit, units
from neo_async.cli.prompts import show_account
from neo_async.cli.table_layout import Column
from neo_async.client import NeoClient
from neo_async.model.orders import OrderRow, Trade
from neo_async.model.portfolio import Holding, Limits, Position
from neo_async.model.session import Session

T = TypeVar("T")

_NUMBER = True

ORDER_FIELDS = (*output.columns_of(OrderRow, without=["reject_text"]), "status", "reject_reason")
"""Columns of orders in CSV."""


def login(
    totp: Annotated[
        str | None,
        typer.Option(
            "--totp", metavar="CODE", help="Code of the authenticator, without NEO_TOTP_SECRET."
        ),
    ] = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Log in and keep the login for the commands that follow, until midnight IST."""
    account = Account()

    async def log_in() -> tuple[Session, bool, Limits]:
        async with account.connect(fresh=fresh, totp=totp) as neo:
            limits = await neo.portfolio.limits()
            return neo.session, neo.is_paper, limits

    session, is_paper, limits = neo_async.run(log_in())
    if as_json:
        output.print_json(
            {
                "ucc": session.ucc,
                "base_url": session.base_url,
                "is_paper": is_paper,
                "available": limits.available,
            }
        )
        return
    output.echo(
        f"logged in as {session.ucc} at {session.base_url}: {mode_of(is_paper=is_paper)}; "
        f"available {money(limits.available)}"
    )


def logout() -> None:
    """Delete the stored login. The broker has no call to end a session.

    Without an account in the environment, those of all accounts at the server are deleted.
    """
    deleted = forget_logins()
    for ucc, server in deleted:
        output.echo(f"the stored login of account {ucc} at {server} is deleted")
    if not deleted:
        output.echo("no login was stored")


def ip(fresh: Fresh = False, as_json: AsJson = False) -> None:
    """Show the address from which the broker sees this machine, to register it for orders."""
    address = _read(fresh, lambda neo: neo.client_ip(), as_json)
    if as_json:
        output.print_json({"ip": address})
    else:
        output.echo(address)


def orders(fresh: Fresh = False, as_csv: AsCsv = False, as_json: AsJson = False) -> None:
    """Show today's orders, newest first."""
    output.print_report(
        _read(fresh, lambda neo: neo.orders.book(), as_json or as_csv),
        print_orders,
        empty="no orders today",
        columns=ORDER_FIELDS,
        fields=order_fields,
        as_json=as_json,
        as_csv=as_csv,
    )


def trades(fresh: Fresh = False, as_csv: AsCsv = False, as_json: AsJson = False) -> None:
    """Show today's fills."""
    output.print_report(
        _read(fresh, lambda neo: neo.orders.trades(), as_json or as_csv),
        _print_trades,
        empty="no trades today",
        columns=output.columns_of(Trade),
        as_json=as_json,
        as_csv=as_csv,
    )


def positions(fresh: Fresh = False, as_csv: AsCsv = False, as_json: AsJson = False) -> None:
    """Show positions with realised, unrealised and the day's mark-to-market P&L."""
    output.print_report(
        _read(fresh, lambda neo: neo.portfolio.positions(), as_json or as_csv),
        _print_positions,
        empty="no positions",
        columns=output.columns_of(Position, without=["row"]),
        as_json=as_json,
        as_csv=as_csv,
    )


def holdings(fresh: Fresh = False, as_csv: AsCsv = False, as_json: AsJson = False) -> None:
    """Show delivery holdings."""
    output.print_report(
        _read(fresh, lambda neo: neo.portfolio.holdings(), as_json or as_csv),
        _print_holdings,
        empty="no holdings",
        columns=output.columns_of(Holding),
        as_json=as_json,
        as_csv=as_csv,
    )


def limits(fresh: Fresh = False, as_csv: AsCsv = False, as_json: AsJson = False) -> None:
    """Show funds and margins of the account."""
    row = _read(fresh, lambda neo: neo.portfolio.limits(), as_json or as_csv)
    output.print_record(row, _print_limits, as_json=as_json, as_csv=as_csv)


# --- tables ---------------------------------------------------------------------------------------


def _print_trades(rows: Sequence[Trade]) -> None:
    columns = (
        Column("Order", is_whole=True),
        Column("Trade", is_whole=True, rank=2),
        Column("Time", is_whole=True, rank=1),
        Column("Symbol", is_whole=True),
        Column("Side"),
        Column("Quantity", _NUMBER),
        Column("Price", _NUMBER),
        Column("Product", rank=3),
    )
    output.print_table(
        columns,
        (
            (
                row.order_number,
                row.trade_number,
                row.time_text.rpartition(" ")[2],
                row.symbol,
                output.side_name(row.side),
                known_units(row, "quantity"),
                money(known(row, "price")),
                row.product,
            )
            for row in rows
        ),
    )
    output.print_notes(_odd_notes(rows, "order_number"))


def _print_positions(rows: Sequence[Position]) -> None:
    columns = (
        Column("Symbol", is_whole=True),
        Column("Product", rank=1),
        Column("Net", _NUMBER),
        Column("Average", _NUMBER, rank=2),
        Column("Last", _NUMBER, rank=3),
        Column("Realised", _NUMBER, rank=5),
        Column("Unrealised", _NUMBER, rank=6),
        Column("P&L", _NUMBER),
        Column("MTM", _NUMBER, rank=4),
    )
    output.print_table(
        columns,
        (
            (
                row.symbol,
                row.product,
                units(row.net_quantity),
                money(row.average_price),
                money(row.last_price),
                profit(row.realised),
                profit(row.unrealised),
                profit(row.pnl),
                profit(row.mtm_pnl),
            )
            for row in rows
        ),
    )
    output.print_notes(f"{row.symbol}: {row.unknown_reason}" for row in rows if row.unknown_reason)


def _print_holdings(rows: Sequence[Holding]) -> None:
    columns = (
        Column("Symbol", is_whole=True),
        Column("Quantity", _NUMBER),
        Column("Sellable", _NUMBER, rank=3),
        Column("Average", _NUMBER, rank=2),
        Column("Close", _NUMBER, rank=4),
        Column("Value", _NUMBER),
        Column("Unrealised", _NUMBER, rank=1),
    )
    output.print_table(
        columns,
        (
            (
                row.symbol,
                known_units(row, "quantity"),
                units(row.sellable_quantity),
                money(row.average_price),
                money(row.closing_price),
                money(row.market_value),
                profit(row.unrealised),
            )
            for row in rows
        ),
    )
    output.print_notes(_odd_notes(rows, "symbol"))
    if any(
        None in (row.average_price, row.closing_price, row.market_value) and not row.odd
        for row in rows
    ):
        output.print_notes(["unknown: not in the broker's answer"])


def _print_limits(row: Limits) -> None:
    amounts = (
        ("Available", row.available),
        ("Margin used", row.margin_used),
        ("Cash", row.collateral_value),
        ("Margin from pledged shares", row.collateral),
        ("Realised MTM", row.realised_mtm),
        ("Unrealised MTM", row.unrealised_mtm),
        ("SPAN margin", row.span_margin),
        ("Exposure margin", row.exposure_margin),
        ("Premium", row.premium),
    )
    output.print_table(
        (Column("Funds"), Column("Rupees", _NUMBER)),
        ((name, amount_cell(amount)) for name, amount in amounts),
    )
    output.print_notes(row.odd)
    if sum(amount is None for _, amount in amounts) > len(row.odd):
        output.print_notes(["unknown: not in the broker's answer"])


def print_orders(rows: Sequence[OrderRow]) -> None:
    columns = (
        Column("Order", is_whole=True),
        Column("Time", is_whole=True, rank=5),
        Column("Symbol", is_whole=True),
        Column("Side"),
        Column("Filled", _NUMBER),
        Column("Price", _NUMBER, rank=1),
        Column("Trigger", _NUMBER, is_optional=True, rank=2),
        Column("Average", _NUMBER, is_optional=True, rank=3),
        Column("Type", is_whole=True, rank=4),
        Column("State", comfortable=9),
    )
    output.print_table(
        columns,
        (
            (
                row.number,
                row.time_text.rpartition(" ")[2],
                row.symbol,
                output.side_name(row.side),
                f"{known_units(row, 'filled_quantity')}/{known_units(row, 'quantity')}",
                _known_price(row, "price"),
                _known_price(row, "trigger"),
                _known_price(row, "average_price"),
                f"{row.order_type} {row.product} {row.validity}",
                output.status(row.status_text),
            )
            for row in rows
        ),
    )
    output.print_notes(f"{row.number}: {row.reject_reason}" for row in rows if row.reject_reason)
    output.print_notes(_odd_notes(rows, "number"))


def order_fields(row: OrderRow) -> dict[str, object]:
    """Return a row for JSON and CSV: the broker's fields, with the parsed status and the reason of
    a rejection."""
    fields: dict[str, Any] = output.plain(row)
    del fields["reject_text"]
    return fields | {"status": row.status.value, "reject_reason": row.reject_reason}


def known(row: Any, field: str) -> Any:
    """Return a field of a report's row; None when it is missing or unreadable."""
    return None if field in row.missing else getattr(row, field)


def known_units(row: OrderRow | Trade | Holding, field: str) -> str:
    return units(known(row, field))


def _known_price(row: OrderRow, field: str) -> str:
    return money(None) if field in row.missing else limit_price(getattr(row, field))


def _odd_notes(rows: Iterable[Any], name: str) -> Iterator[str]:
    """Return the unreadable values of a report."""
    return (f"{getattr(row, name)}: {'; '.join(row.odd)}" for row in rows if row.odd)


def _read(fresh: bool, call: Callable[[NeoClient], Awaitable[T]], as_json: bool) -> T:
    account = Account()
    if not as_json:
        show_account(account)
    return account.read(call, fresh=fresh)
