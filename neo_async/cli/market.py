"""Commands for quotes, chains and candles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from itertools import zip_longest
from typing import Annotated, Any, TypeAlias

import typer

from neo_async.base.india import date_of
from neo_async.cli import output
from neo_async.cli.connection import Account, Fresh
from neo_async.cli.csv_output import print_csv
from neo_async.cli.naming import (
    InstrumentName,
    InstrumentNames,
    read_keys,
    read_listed_key,
    read_underlying,
    segment_completer,
)
from neo_async.cli.output import AsCsv, AsJson, Cell, money, units
from neo_async.cli.parameters import choice_argument, choice_option, day, whole_number
from neo_async.cli.table_layout import Column
from neo_async.client import NeoClient
from neo_async.errors import Rejected, UsageError
from neo_async.model.enums import Segment
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
from neo_async.wire.candles import candle_windows
from neo_async.wire.chains import futures_query, options_query
from neo_async.wire.rules import read_segment

_NUMBER = True

_Expiry: TypeAlias = Annotated[
    date | None,
    typer.Option(parser=day, metavar="YYYY-MM-DD", help="The nearest unless given."),
]


def quote(
    instruments: InstrumentNames,
    filter: Annotated[  # noqa: A002 - the broker's word for it
        QuoteFilter,
        choice_option(QuoteFilter, "--filter", metavar="FIGURES", help="Figures to ask for:"),
    ] = QuoteFilter.ALL,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
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
    elif as_csv:
        print_csv(_QUOTE_FIELDS, map(_quote_fields, quotes.values()))
        _print_missing(quotes, err=True)
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
            metavar="[SEGMENT] UNDERLYING",
            autocompletion=segment_completer,
            help="Such as NIFTY, nse_fo NIFTY or mcx_fo CRUDEOIL.",
        ),
    ],
    expiry: _Expiry = None,
    count: Annotated[
        int,
        typer.Option(
            parser=whole_number(1),
            metavar="NUMBER",
            help="Calls, and as many puts; a multiple of 10.",
        ),
    ] = 40,
    futures: Annotated[bool, typer.Option("--futures", help="Futures instead of options.")] = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show calls and puts of one expiry by strike, or all futures.

    neo-async chain NIFTY --expiry 2026-12-01
    """
    if len(names) > 2:
        raise UsageError(f"{' '.join(names)!r}: must be an underlying, or its segment before it")
    segment = read_segment(names[0]) if len(names) == 2 else Segment.NSE_FO
    # Checked before a login is made.
    if futures:
        futures_query(segment, names[-1], expiry)
    else:
        options_query(segment, names[-1], expiry, count)
    account = Account()
    segment, underlying = read_underlying(account, names)

    async def read(neo: NeoClient) -> OptionChain | FuturesChain:
        try:
            if futures:
                return await neo.market.futures_chain(segment, underlying, expiry)
            return await neo.market.option_chain(segment, underlying, expiry, count)
        except Rejected:
            kind = "fut" if futures else "option"
            listed = await neo.market.expiries(segment, underlying, kind=kind) if expiry else []
            if not listed or expiry in listed:
                raise
            days = ", ".join(map(str, listed))
            raise UsageError(f"expiry={expiry}: {underlying} has {days}") from None

    try:
        table = account.read(read, fresh=fresh)
    except Rejected:
        # The scrip master shows what there is instead; where it has the underlying, the broker's
        # own words stand.
        read_underlying(account, [segment, underlying], download=True)
        raise
    if as_json:
        output.print_json(table)
    elif as_csv:
        print_csv(list(table.columns), _rows_of(table.columns))
    elif not table.rows:
        output.echo(f"the broker lists none for {underlying}")
    elif isinstance(table, OptionChain):
        _print_options(table)
    else:
        _print_futures(table)


def candles(
    instrument: InstrumentName,
    interval: Annotated[Interval, choice_argument(Interval, "INTERVAL")],
    start: Annotated[
        date, typer.Option("--from", parser=day, metavar="YYYY-MM-DD", help="First day.")
    ],
    end: Annotated[
        date | None,
        typer.Option(
            "--to", parser=day, metavar="YYYY-MM-DD", help="Last day; today unless given."
        ),
    ] = None,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show candles of an instrument, over a range of any length.

    neo-async candles HDFCBANK 5min --from 2025-11-01 --csv > hdfcbank.csv
    """
    # Checked before a login is made.
    candle_windows(start, end or max(start, date_of(time.time())), interval)
    account = Account()
    name = read_listed_key(account, instrument)
    with output.progress_bar("candles", visible_above=1) as progress:
        history = account.read(
            lambda neo: neo.market.candles(name, interval, start=start, end=end, progress=progress),
            fresh=fresh,
        )
    if as_json:
        output.print_json(list(history))
    elif as_csv:
        print_csv(list(history.columns), _rows_of(history.columns))
    elif not history:
        output.echo("no candles in this range")
    else:
        _print_candles(history)


# --- tables -----------------------------------------------------------------------------------


def _number(heading: str, rank: int = 0) -> Column:
    return Column(heading, _NUMBER, rank=rank)


_QUOTE_COLUMNS: tuple[tuple[Column, Callable[[Quote], Any], Callable[[Any], str | Cell]], ...] = (
    (_number("Last"), lambda quote: quote.last_price, money),
    (_number("Change", 2), lambda quote: quote.change, output.profit),
    (_number("%"), lambda quote: quote.change_percent, output.profit),
    (_number("Open", 6), lambda quote: quote.open, money),
    (_number("High", 5), lambda quote: quote.high, money),
    (_number("Low", 5), lambda quote: quote.low, money),
    (_number("Close", 4), lambda quote: quote.close, money),
    (_number("Bid", 1), lambda quote: quote.bids[0].price if quote.bids else None, money),
    (_number("Ask", 1), lambda quote: quote.asks[0].price if quote.asks else None, money),
    (_number("Volume", 2), lambda quote: quote.volume, units),
    (_number("OI", 3), lambda quote: quote.open_interest or None, units),
    (_number("Circuit low", 8), lambda quote: quote.lower_circuit, money),
    (_number("Circuit high", 8), lambda quote: quote.upper_circuit, money),
    (_number("Year low", 9), lambda quote: quote.year_low, money),
    (_number("Year high", 9), lambda quote: quote.year_high, money),
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
            Column("Instrument", is_whole=True, rank=6),
            Column("Symbol", is_whole=True),
            Column("Time", is_whole=True, rank=7),
        )
        output.print_table(
            (*headings, *(column for column, _, _ in shown)),
            (
                (
                    name,
                    quote.symbol or name,
                    f"{quote.updated:%H:%M:%S}" if quote.updated else "",
                    *(_cell(value(quote), form) for _, value, form in shown),
                )
                for name, quote in quotes.items()
            ),
        )
    _print_missing(quotes)


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
    _print_missing(quotes)


def _print_missing(quotes: Quotes, *, err: bool = False) -> None:
    for name, reason in quotes.missing.items():
        output.print_sentence(f"{name}: {reason}", err=err)


def _level_cells(row: DepthRow | None) -> tuple[str, str, str]:
    if row is None:
        return "", "", ""
    return money(row.price), units(row.quantity), units(row.orders)


def _cell(value: Any, form: Callable[[Any], str | Cell]) -> str | Cell:
    return "" if value is None else form(value)


def _print_options(table: OptionChain) -> None:
    output.echo(f"{table.underlying} {table.expiry or ''}, lots of {units(table.lot_size)}")
    headings = ("OI", "Volume", "Change", "Call", "Strike", "Put", "Change", "Volume", "OI")
    ranks = {"Volume": 3, "OI": 2, "Change": 1}
    output.print_table(
        [_number(heading, ranks.get(heading, 0)) for heading in headings],
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
            Column("Symbol", is_whole=True),
            Column("Expiry", is_whole=True),
            _number("Last"),
            _number("Open", 4),
            _number("High", 5),
            _number("Low", 5),
            _number("Close", 3),
            _number("Volume", 1),
            _number("OI", 1),
            _number("Change of OI", 2),
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


_CANDLE_PRICES = (("Open", 3), ("High", 1), ("Low", 1), ("Close", 0))
"""Headings, and ranks by which they are left out."""


def _print_candles(history: Candles) -> None:
    prices = (_number(name, rank) for name, rank in _CANDLE_PRICES)
    form = "%Y-%m-%d" if history.interval in (Interval.DAY, Interval.WEEK) else "%Y-%m-%d %H:%M"
    output.print_table(
        (Column("Time", is_whole=True), *prices, _number("Volume", 2)),
        (
            (
                candle.time.strftime(form),
                *map(money, (candle.open, candle.high, candle.low, candle.close)),
                _cell(candle.volume, units),
            )
            for candle in history
        ),
    )


# --- CSV ------------------------------------------------------------------------------------------


def _rows_of(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    names = list(columns)
    for cells in zip(*columns.values(), strict=True):
        yield dict(zip(names, cells, strict=True))


_LEVELS = 5
"""Levels of the book in a quote."""

_QUOTE_FIELDS = [
    *output.columns_of(Quote, without=["bids", "asks"]),
    *(
        f"{side}_{level}_{name}"
        for side in ("bid", "ask")
        for level in range(1, _LEVELS + 1)
        for name in DepthRow.__struct_fields__
    ),
]


def _quote_fields(quote: Quote) -> dict[str, Any]:
    """Return the figures of a quote, with a field for each figure of its book."""
    fields: dict[str, Any] = output.plain(quote)
    for side, rows in (("bid", quote.bids), ("ask", quote.asks)):
        for level, row in enumerate(rows, start=1):
            fields |= {f"{side}_{level}_{name}": value for name, value in output.plain(row).items()}
    return fields
