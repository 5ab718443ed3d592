"""Orders, SIPs, holdings and funds as tables, or as JSON with Kite's own field names."""

from __future__ import annotations

from typing import Annotated

import typer

from neo_async.cli import output
from neo_async.cli.kite.access import read
from neo_async.cli.output import NOTHING, AsJson, Cell, Column, money, profit
from neo_async.kite import Fund, FundHolding, FundOrder, Funds, KiteMutualFunds, Sip

_NUMBER = True
_SHOWN = 50


def orders(
    order_id: Annotated[str, typer.Argument(help="One order, of any age.")] = "",
    as_json: AsJson = False,
) -> None:
    """Orders of the last seven days, or one order of any age."""

    async def call(kite: KiteMutualFunds) -> list[FundOrder]:
        return [await kite.order(order_id)] if order_id else await kite.orders()

    output.print_report(
        read(call), print_orders, empty="no orders in the last seven days", as_json=as_json
    )


def sips(
    sip_id: Annotated[str, typer.Argument(help="One SIP, also a cancelled one.")] = "",
    as_json: AsJson = False,
) -> None:
    """SIPs that are active or paused, or one SIP in any state."""

    async def call(kite: KiteMutualFunds) -> list[Sip]:
        return [await kite.sip(sip_id)] if sip_id else await kite.sips()

    output.print_report(read(call), print_sips, empty="no SIPs", as_json=as_json)


def holdings(as_json: AsJson = False) -> None:
    """Units of funds with their value and P&L."""
    rows: list[FundHolding] = read(lambda kite: kite.holdings())
    if as_json:
        output.print_json(rows)
    elif not rows:
        output.echo("no holdings")
    else:
        columns = (
            Column("Fund"),
            Column("ISIN", is_whole=True),
            Column("Folio", is_whole=True, is_spare=True),
            Column("Units", _NUMBER),
            Column("Average", _NUMBER),
            Column("NAV", _NUMBER),
            Column("Value", _NUMBER),
            Column("P&L", _NUMBER),
        )
        output.print_table(
            columns,
            (
                (
                    row.fund,
                    row.tradingsymbol,
                    row.folio or NOTHING,
                    fund_units(row.quantity),
                    _nav(row.average_price),
                    _nav(row.last_price),
                    output.amount_cell(row.value),
                    profit(row.pnl),
                )
                for row in rows
            ),
        )
        output.print_notes(
            f"{row.fund}: {row.unknown_reason}" for row in rows if row.unknown_reason
        )


def instruments(
    name: Annotated[list[str] | None, typer.Argument(help="Words of the fund's name.")] = None,
    isin: Annotated[str, typer.Option(help="Start of the ISIN.")] = "",
    amc: Annotated[str, typer.Option(help="Part of the company's code: KOTAK.")] = "",
    plan: Annotated[str, typer.Option(metavar="direct|regular")] = "",
    dividend: Annotated[str, typer.Option(metavar="growth|payout|idcw")] = "",
    scheme: Annotated[str, typer.Option(metavar="equity|debt|elss|…")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Rows to show; 0 for all.")] = _SHOWN,
    refresh: Annotated[bool, typer.Option("--refresh", help="Download the list again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Funds that can be bought, from the day's list.

    neo-async kite instruments kotak liquid --plan direct --dividend growth
    """

    async def call(kite: KiteMutualFunds) -> tuple[Funds, list[Fund]]:
        funds = await kite.instruments(refresh=refresh)
        found = funds.search(
            " ".join(name or []),
            isin=isin,
            amc=amc,
            plan=plan,
            dividend_type=dividend,
            scheme_type=scheme,
        )
        return funds, found

    funds, found = read(call)
    if as_json:
        output.print_json(found)
        return
    shown = found[:limit] if limit else found
    if shown:
        _print_funds(shown)
    notes = []
    if len(found) > len(shown):
        notes.append(f"{len(shown)} of {len(found):,}; --limit 0 shows all")
    elif not found:
        notes.append(f"none of {len(funds):,} funds matches")
    if funds.is_stale:
        notes.append(f"today's list could not be downloaded: this is the one of {funds.day}")
    if funds.bad_row_count:
        notes.append(f"{funds.bad_row_count:,} rows of the list could not be read")
    output.print_notes(notes)


def print_orders(rows: list[FundOrder]) -> None:
    columns = (
        Column("Order", is_whole=True),
        Column("Time", is_whole=True, is_spare=True),
        Column("Fund"),
        Column("Side"),
        Column("Amount", _NUMBER),
        Column("Units", _NUMBER),
        Column("NAV", _NUMBER, is_optional=True),
        Column("Tag", is_optional=True),
        Column("State"),
    )
    output.print_table(
        columns,
        (
            (
                row.order_id,
                f"{row.order_timestamp:%m-%d %H:%M}" if row.order_timestamp else NOTHING,
                row.fund,
                row.transaction_type.lower(),
                NOTHING if row.amount == 0 else money(row.amount),
                NOTHING if row.quantity == 0 else fund_units(row.quantity),
                NOTHING if row.average_price == 0 else _nav(row.average_price),
                row.tag or NOTHING,
                _status(row.status),
            )
            for row in rows
        ),
    )
    output.print_notes(
        f"{row.order_id}: {row.status_message}" for row in rows if row.status_message
    )


def print_sips(rows: list[Sip]) -> None:
    columns = (
        Column("SIP", is_whole=True),
        Column("Fund"),
        Column("Amount", _NUMBER),
        Column("Every"),
        Column("Done", _NUMBER),
        Column("Next", is_whole=True, is_optional=True),
        Column("Step-up", is_optional=True),
        Column("Tag", is_optional=True),
        Column("State"),
    )
    output.print_table(
        columns,
        (
            (
                row.sip_id,
                row.fund,
                money(row.instalment_amount),
                _frequency(row),
                f"{row.completed_instalments}"
                + (f"/{row.instalments}" if (row.instalments or -1) >= 0 else ""),
                str(row.next_instalment or NOTHING),
                ", ".join(f"{percent:g} % on {day}" for day, percent in row.step_up.items())
                or NOTHING,
                row.tag or NOTHING,
                _status(row.status),
            )
            for row in rows
        ),
    )


def _print_funds(rows: list[Fund]) -> None:
    columns = (
        Column("ISIN", is_whole=True),
        Column("Fund"),
        Column("Plan"),
        Column("Dividend"),
        Column("Scheme", is_spare=True),
        Column("First", _NUMBER),
        Column("Then", _NUMBER),
        Column("Times", _NUMBER),
        Column("NAV", _NUMBER),
        Column("Closed to", is_optional=True),
    )
    output.print_table(
        columns,
        (
            (
                row.tradingsymbol,
                row.name,
                row.plan,
                row.dividend_type,
                row.scheme_type,
                money(row.minimum_purchase_amount),
                money(row.minimum_additional_purchase_amount),
                f"{row.purchase_amount_multiplier:g}",
                _nav(row.last_price),
                _closed_to(row),
            )
            for row in rows
        ),
    )


def fund_units(quantity: float | None) -> str:
    return output.UNKNOWN if quantity is None else f"{quantity:,.3f}"


def _nav(price: float | None) -> str:
    return output.UNKNOWN if price is None else f"{price:,.4f}"


def _frequency(sip: Sip) -> str:
    unit = sip.frequency.removesuffix("ly")
    return f"{unit}, day {sip.instalment_day}" if sip.instalment_day else unit


def _status(text: str | None) -> Cell:
    return output.status((text or NOTHING).lower())


def _closed_to(fund: Fund) -> str:
    closed = [
        what
        for what, is_allowed in (
            ("purchases", fund.purchase_allowed),
            ("redemptions", fund.redemption_allowed),
        )
        if not is_allowed
    ]
    return ", ".join(closed) or NOTHING
