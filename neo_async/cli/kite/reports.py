"""Orders, SIPs, holdings and funds as tables, or as JSON or CSV with Kite's own field names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from neo_async.cli import output
from neo_async.cli.csv_output import print_csv
from neo_async.cli.kite.access import read
from neo_async.cli.output import NOTHING, AsCsv, AsJson, Cell, money, profit
from neo_async.cli.parameters import Limit
from neo_async.cli.table_layout import Column
from neo_async.kite import Fund, FundHolding, FundOrder, Funds, KiteMutualFunds, Sip

_NUMBER = True
_SHOWN = 50


def orders(
    order_id: Annotated[str, typer.Argument(metavar="ORDER", help="One order, of any age.")] = "",
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show orders of the last seven days, or one order of any age."""

    async def call(kite: KiteMutualFunds) -> list[FundOrder]:
        return [await kite.order(order_id)] if order_id else await kite.orders()

    output.print_report(
        read(call),
        print_orders,
        empty="no orders in the last seven days",
        columns=output.columns_of(FundOrder),
        as_json=as_json,
        as_csv=as_csv,
    )


def sips(
    sip_id: Annotated[
        str, typer.Argument(metavar="SIP", help="One SIP, also a cancelled one.")
    ] = "",
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show SIPs that are active or paused, or one SIP in any state."""

    async def call(kite: KiteMutualFunds) -> list[Sip]:
        return [await kite.sip(sip_id)] if sip_id else await kite.sips()

    output.print_report(
        read(call),
        print_sips,
        empty="no SIPs",
        columns=output.columns_of(Sip),
        as_json=as_json,
        as_csv=as_csv,
    )


def holdings(as_csv: AsCsv = False, as_json: AsJson = False) -> None:
    """Show units of funds with their value and P&L."""
    output.print_report(
        read(lambda kite: kite.holdings()),
        _print_holdings,
        empty="no holdings",
        columns=output.columns_of(FundHolding),
        as_json=as_json,
        as_csv=as_csv,
    )


def instruments(
    name: Annotated[
        list[str] | None, typer.Argument(metavar="WORDS", help="Words of the fund's name.")
    ] = None,
    isin: Annotated[str, typer.Option("--isin", metavar="ISIN", help="Start of the ISIN.")] = "",
    amc: Annotated[
        str, typer.Option(metavar="CODE", help="Part of the company's code: KOTAK.")
    ] = "",
    plan: Annotated[str, typer.Option("--plan", metavar="PLAN", help="direct or regular.")] = "",
    dividend: Annotated[str, typer.Option(metavar="KIND", help="growth, payout or idcw.")] = "",
    scheme: Annotated[
        str, typer.Option("--scheme", metavar="SCHEME", help="equity, debt, elss …")
    ] = "",
    limit: Limit = _SHOWN,
    refresh: Annotated[bool, typer.Option("--refresh", help="Download the list again.")] = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show funds that can be bought, from the day's list.

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
    if as_csv:
        print_csv(output.columns_of(Fund), map(output.plain, found))
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


def _print_holdings(rows: Sequence[FundHolding]) -> None:
    columns = (
        Column("Fund"),
        Column("ISIN", is_whole=True, rank=1),
        Column("Folio", is_whole=True, rank=5),
        Column("Units", _NUMBER),
        Column("Average", _NUMBER, rank=3),
        Column("NAV", _NUMBER, rank=4),
        Column("Value", _NUMBER),
        Column("P&L", _NUMBER, rank=2),
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
    output.print_notes(f"{row.fund}: {row.unknown_reason}" for row in rows if row.unknown_reason)


def print_orders(rows: Sequence[FundOrder]) -> None:
    columns = (
        Column("Order", is_whole=True),
        Column("Time", is_whole=True, rank=3),
        Column("Fund"),
        Column("Side"),
        Column("Amount", _NUMBER),
        Column("Units", _NUMBER, is_optional=True, rank=1),
        Column("NAV", _NUMBER, is_optional=True, rank=2),
        Column("Tag", is_optional=True, rank=4),
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


def print_sips(rows: Sequence[Sip]) -> None:
    columns = (
        Column("SIP", is_whole=True),
        Column("Fund"),
        Column("Amount", _NUMBER),
        Column("Every"),
        Column("Done", _NUMBER, rank=2),
        Column("Next", is_whole=True, is_optional=True, rank=1),
        Column("Step-up", is_optional=True, rank=3),
        Column("Tag", is_optional=True, rank=4),
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


def _print_funds(rows: Sequence[Fund]) -> None:
    columns = (
        Column("ISIN", is_whole=True),
        Column("Fund"),
        Column("Plan", rank=2),
        Column("Dividend", rank=3),
        Column("Scheme", rank=6),
        Column("First", _NUMBER, rank=1),
        Column("Then", _NUMBER, rank=4),
        Column("Times", _NUMBER, rank=5),
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
