"""Commands for quotes, chains and candles."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from datetime import date, datetime
from itertools import zip_longest
from typing import Annotated, Any, TypeAlias

import typer

from neo_async.cli import output
from neo_async.cli.connection import Account, Fresh
from neo_async.cli.naming import HELP, read_keys, read_listed_key, read_underlying
from neo_async.cli.output import AsJson, Cell, Column, money, units
from neo_async.client import NeoClient
from neo_async.errors import Rejected, UsageError
from neo_async.model.market import (
    Candles,
    FuturesChain,
    Interval,
    OptionChain,
    OptionQuote,
    Quote,
    QuoteFilter,
    Quotes,
)
from neo_async.model.ticks import DepthRow

_NUMBER = True

_DATES = ["%Y-%m-%d"]

_Instrument: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="INSTRUMENT", help=HELP),
]
_Instruments: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="INSTRUMENT...", help=HELP),
]
_Expiry: TypeAlias = Annotated[
    datetime | None,
    typer.Option(formats=_DATES, metavar="YYYY-MM-DD", help="The nearest unless given."),
]


def quote(
    instruments: _Instruments,
    filter: Annotated[  # noqa: A002 - the broker's word for it
        QuoteFilter, typer.Option(case_sensitive=False, help="Figures to ask for.")
    ] = QuoteFilter.ALL,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Show last prices and the day's figures of any number of instruments.

    A narrow terminal shows the most important columns; `--filter` chooses others.

    neo-async quote RELIANCE nse_cm:1333 'nse_cm:Nifty 50'
    """
    account = Account()
    names = read_keys(account, instruments)
    quotes = account.read(lambda neo: neo.market.quotes(names, filter=filter), fresh=fresh)
    if as_json:
        listed = [output.plain(quote) for quote in quotes.values()]
        output.print_json({"quotes": listed, "missing": dict(quotes.missing)})
    elif filter is QuoteFilter.DEPTH:
        _print_depth(quotes)
    else:
        _print_quotes(quotes)
    if quotes.missing and not quotes:
        raise typer.Exit(1)


def chain(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[SEGMENT] UNDERLYING", help="Such as NIFTY, nse_fo NIFTY or mcx_fo CRUDEOIL."
        ),
    ],
    expiry: _Expiry = None,
    count: Annotated[int, typer.Option(help="Calls, and as many puts; a multiple of 10.")] = 40,
    futures: Annotated[bool, typer.Option("--futures", help="Futures instead of options.")] = False,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Show calls and puts of one expiry by strike, or all futures.

    neo-async chain NIFTY --expiry 2026-12-01
    """
    if len(names) > 2:
        raise UsageError(f"{' '.join(names)!r}: must be an underlying, or its segment before it")
    account = Account()
    segment, underlying = read_underlying(account, names)
    day = expiry.date() if expiry else None

    async def read(neo: NeoClient) -> OptionChain | FuturesChain:
        try:
            if futures:
                return await neo.market.futures_chain(segment, underlying, day)
            return await neo.market.option_chain(segment, underlying, day, count)
        except Rejected:
            kind = "fut" if futures else "option"
            listed = await neo.market.expiries(segment, underlying, kind=kind) if day else []
            if not listed or day in listed:
                raise
            days = ", ".join(map(str, listed))
            raise UsageError(f"expiry={day}: {underlying} has {days}") from None

    try:
        table = account.read(read, fresh=fresh)
    except Rejected:
        # The scrip master shows what there is instead; where it has the underlying, the broker's
        # own words stand.
        read_underlying(account, [segment, underlying], download=True)
        raise
    if as_json:
        output.print_json(table)
    elif not table.rows:
        output.echo(f"the broker lists none for {underlying}")
    elif isinstance(table, OptionChain):
        _print_options(table)
    else:
        _print_futures(table)


def candles(
    instrument: _Instrument,
    interval: Annotated[Interval, typer.Argument(case_sensitive=False)],
    start: Annotated[
        datetime, typer.Option("--from", formats=_DATES, metavar="YYYY-MM-DD", help="First day.")
    ],
    end: Annotated[
        datetime | None,
        typer.Option(
            "--to", formats=_DATES, metavar="YYYY-MM-DD", help="Last day; today unless given."
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Show candles of an instrument, over a range of any length.

    neo-async candles HDFCBANK 5min --from 2025-11-01 --csv > hdfcbank.csv
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other")
    account = Account()
    name = read_listed_key(account, instrument)
    last = end.date() if end else None
    with output.progress_bar("candles", visible_above=1) as progress:
        history = account.read(
            lambda neo: neo.market.candles(
                name, interval, start=start.date(), end=last, progress=progress
            ),
            fresh=fresh,
        )
    if as_json:
        output.print_json(list(history))
    elif as_csv:
        _print_csv(history)
    elif not history:
        output.echo("no candles in this range")
    else:
        _print_candles(history)


# --- tables -----------------------------------------------------------------------------------


def _spare(heading: str) -> Column:
    return Column(heading, _NUMBER, is_spare=True)


_QUOTE_COLUMNS: tuple[tuple[Column, Callable[[Quote], Any], Callable[[Any], str | Cell]], ...] = (
    (Column("Last", _NUMBER), lambda quote: quote.last_price, money),
    (Column("Change", _NUMBER), lambda quote: quote.change, output.profit),
    (Column("%", _NUMBER), lambda quote: quote.change_percent, output.profit),
    (_spare("Open"), lambda quote: quote.open, money),
    (_spare("High"), lambda quote: quote.high, money),
    (_spare("Low"), lambda quote: quote.low, money),
    (_spare("Close"), lambda quote: quote.close, money),
    (Column("Bid", _NUMBER), lambda quote: quote.bids[0].price if quote.bids else None, money),
    (Column("Ask", _NUMBER), lambda quote: quote.asks[0].price if quote.asks else None, money),
    (Column("Volume", _NUMBER), lambda quote: quote.volume, units),
    (_spare("OI"), lambda quote: quote.open_interest or None, units),
    (_spare("Circuit low"), lambda quote: quote.lower_circuit, money),
    (_spare("high"), lambda quote: quote.upper_circuit, money),
    (_spare("Year low"), lambda quote: quote.year_low, money),
    (_spare("high"), lambda quote: quote.year_high, money),
)


def _print_quotes(quotes: Quotes) -> None:
    """Print the columns in which at least one quote has a value."""
    shown = [
        column
        for column in _QUOTE_COLUMNS
        if any(column[1](quote) is not None for quote in quotes.values())
    ]
    if quotes:
        headings = (
            Column("Instrument", is_whole=True),
            Column("Symbol"),
            Column("Time", is_spare=True),
        )
        output.print_table(
            (*headings, *(column for column, _, _ in shown)),
            (
                (
                    name,
                    quote.symbol,
                    f"{quote.updated:%H:%M:%S}" if quote.updated else "",
                    *(_cell(value(quote), form) for _, value, form in shown),
                )
                for name, quote in quotes.items()
            ),
        )
    output.print_notes(f"{name}: {reason}" for name, reason in quotes.missing.items())


def _print_depth(quotes: Quotes) -> None:
    headings = ("Orders", "Quantity", "Bid", "Ask", "Quantity", "Orders")
    for name, quote in quotes.items():
        output.echo(f"{name} {quote.symbol}")
        output.print_table(
            [Column(heading, _NUMBER) for heading in headings],
            (
                (*reversed(_level_cells(bid)), *_level_cells(ask))
                for bid, ask in zip_longest(quote.bids, quote.asks)
            ),
        )
    output.print_notes(f"{name}: {reason}" for name, reason in quotes.missing.items())


def _level_cells(row: DepthRow | None) -> tuple[str, str, str]:
    if row is None:
        return "", "", ""
    return money(row.price), units(row.quantity), units(row.orders)


def _cell(value: Any, form: Callable[[Any], str | Cell]) -> str | Cell:
    return "" if value is None else form(value)


def _print_options(table: OptionChain) -> None:
    output.echo(f"{table.underlying} {table.expiry or ''}, lots of {units(table.lot_size)}")
    headings = ("OI", "Volume", "Change", "Call", "Strike", "Put", "Change", "Volume", "OI")
    output.print_table(
        [Column(heading, _NUMBER, is_spare=heading == "Volume") for heading in headings],
        (
            (
                *reversed(_option_cells(row.call)),
                Cell(f"{row.strike:,.10g}", "bold reverse" if row.is_at_the_money else "bold"),
                *_option_cells(row.put),
            )
            for row in table
        ),
    )


def _option_cells(option: OptionQuote | None) -> tuple[str | Cell, ...]:
    if option is None:
        return "", "", "", ""
    change = None
    if option.last_price is not None and option.previous_close is not None:
        change = option.last_price - option.previous_close
    return (
        _cell(option.last_price, money),
        _cell(change, output.profit),
        _cell(option.volume, units),
        _cell(option.open_interest, units),
    )


def _print_futures(table: FuturesChain) -> None:
    output.echo(f"{table.underlying}, lots of {units(table.lot_size)}")
    output.print_table(
        (
            Column("Symbol"),
            Column("Expiry", is_whole=True),
            Column("Last", _NUMBER),
            *map(_spare, ("Open", "High", "Low", "Close")),
            *(Column(name, _NUMBER) for name in ("Volume", "OI", "Change of OI")),
        ),
        (
            (
                row.symbol,
                str(row.expiry or ""),
                *(
                    _cell(price, money)
                    for price in (row.last_price, row.open, row.high, row.low, row.previous_close)
                ),
                _cell(row.volume, units),
                _cell(row.open_interest, units),
                _cell(row.open_interest_change, units),
            )
            for row in table
        ),
    )


def _print_candles(history: Candles) -> None:
    prices = (Column(name, _NUMBER) for name in ("Open", "High", "Low", "Close"))
    form = "%Y-%m-%d" if history.interval in (Interval.DAY, Interval.WEEK) else "%Y-%m-%d %H:%M"
    output.print_table(
        (Column("Time"), *prices, Column("Volume", _NUMBER)),
        (
            (
                candle.time.strftime(form),
                *map(money, (candle.open, candle.high, candle.low, candle.close)),
                _cell(candle.volume, units),
            )
            for candle in history
        ),
    )


def _print_csv(history: Candles) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(history.columns)
    times: list[date | str] = [time.isoformat() for time in history.time]
    writer.writerows(zip(times, *list(history.columns.values())[1:], strict=True))
