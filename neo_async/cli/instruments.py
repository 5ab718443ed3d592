"""The command that lists the day's instruments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import date
from enum import StrEnum
from typing import Annotated, TypeVar

import typer

import neo_async
from neo_async.cli import output
from neo_async.cli.connection import key_only
from neo_async.cli.csv_output import print_csv
from neo_async.cli.naming import is_contract, segment_completer
from neo_async.cli.output import AsCsv, AsJson, Cell, units
from neo_async.cli.parameters import Limit, choice_option
from neo_async.cli.table_layout import Column
from neo_async.client import NeoClient
from neo_async.errors import InvalidField, UsageError
from neo_async.market_data.scrip_master_files import Loaded
from neo_async.model.enums import Segment
from neo_async.model.instruments import Instrument
from neo_async.wire.rules import read_segment

T = TypeVar("T")


class _Right(StrEnum):
    CE = "CE"
    PE = "PE"


_SHOWN = 50
_BAD_ROWS_SHOWN = 5


def instruments(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SEGMENT] [TEXT]",
            autocompletion=segment_completer,
            help="Segment, and what to search as by --search. Without a segment, NSE: contracts "
            "such as 'NIFTY 24500 CE', else shares and funds.",
        ),
    ] = None,
    search: Annotated[
        str,
        typer.Option(
            metavar="WORDS",
            help="Name, symbol, contract such as 'NIFTY 01DEC 24500 CE', or a part of a name or "
            "of the description.",
        ),
    ] = "",
    kind: Annotated[
        str, typer.Option("--kind", metavar="KIND", help="Start of the kind: FUT, OPT, OPTIDX.")
    ] = "",
    expiry: Annotated[
        str, typer.Option(metavar="DAY[:DAY]", help="YYYY-MM-DD, or the first and the last.")
    ] = "",
    strike: Annotated[
        str, typer.Option(metavar="LO:HI", help="One strike, or the lowest and the highest.")
    ] = "",
    option: Annotated[
        _Right | None, choice_option(_Right, "--option", metavar="RIGHT", help="Calls or puts:")
    ] = None,
    limit: Limit = _SHOWN,
    refresh: Annotated[bool, typer.Option("--refresh", help="Download the file again.")] = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """List the instruments of a segment from the day's scrip master. Needs no login.

    neo-async instruments nse_fo --search NIFTY --strike 24000:25000 --option CE

    neo-async instruments NIFTY 01DEC 24500 CE
    """
    segment, text = _segment_and_text(words or [], search)
    days = _range("expiry", expiry, date.fromisoformat, "YYYY-MM-DD or YYYY-MM-DD:YYYY-MM-DD")
    prices = _range("strike", strike, float, "a number, or two as LO:HI")

    async def read() -> tuple[Loaded, list[Instrument], str]:
        neo = NeoClient(key_only())
        try:
            with output.progress_bar(f"scrip master of {segment}", is_bytes=True) as show:
                (loaded,) = await neo.instruments.load(
                    segment,
                    refresh=refresh,
                    progress=lambda _, done, total: show(done, total),
                )
            found = neo.instruments.search(
                text,
                segment=segment,
                kind=kind,
                expiry=days,
                strike=prices,
                option=option,
            )
            near = "" if found or not text else neo.instruments.did_you_mean(text)
            return loaded, found, near
        finally:
            await neo.logout()

    loaded, found, near = neo_async.run(read())
    if as_json:
        output.print_json({"file": loaded, "instruments": found})
        return
    if as_csv:
        print_csv(output.columns_of(Instrument), map(output.plain, found))
        return
    shown = found[:limit] if limit else found
    if shown:
        _print(shown)
    _print_notes(loaded, len(found), len(shown), near)


def _segment_and_text(words: list[str], search: str) -> tuple[Segment, str]:
    """Return the segment, which may be left out, and the text to search."""
    if not words and not search:
        raise UsageError("give a segment, such as nse_cm, or what to search, such as RELIANCE")
    segment = None
    with contextlib.suppress(InvalidField):
        segment = read_segment(words[0]) if words else None
    text = " ".join(words if segment is None else words[1:])
    if text and search:
        raise UsageError(f"give {text!r} or --search {search!r}, not both")
    text = text or search
    if segment is None:
        segment = Segment.NSE_FO if is_contract(text) else Segment.NSE_CM
    return segment, text


def _range(name: str, text: str, read: Callable[[str], T], rule: str) -> tuple[T, T] | None:
    if not text:
        return None
    low, _, high = text.partition(":")
    try:
        return read(low), read(high or low)
    except ValueError:
        raise UsageError(f"{name}={text!r}: must be {rule}") from None


def _print(rows: list[Instrument]) -> None:
    is_number = True
    has_expiry = any(row.expiry for row in rows)
    columns = [
        Column("Token", is_number),
        Column("Symbol", is_whole=True),
        Column("Name", rank=5),
    ]
    columns += (
        [
            Column("Kind", rank=4),
            Column("Expiry", is_whole=True),
            Column("Strike", is_number, rank=2),
            Column("Option", rank=2),
        ]
        if has_expiry
        else [
            Column("Series", rank=4),
            Column("ISIN", is_whole=True, rank=3),
            Column("Description", rank=2),
        ]
    )
    columns += [
        Column("Lot", is_number),
        Column("Tick", is_number, rank=1),
        Column("Freeze", is_number, rank=6),
        Column("Band low", is_number, rank=7),
        Column("Band high", is_number, rank=7),
    ]
    output.print_table(
        columns,
        (
            (
                row.token,
                row.symbol,
                row.name,
                *(_contract_cells(row) if has_expiry else _share_cells(row)),
                units(row.lot_size),
                f"{row.tick_size:.10g}" if row.tick_size else "",
                units(row.freeze_quantity) if row.freeze_quantity else "",
                _price(row.lower_band, row.precision),
                _price(row.upper_band, row.precision),
            )
            for row in rows
        ),
    )


def _contract_cells(row: Instrument) -> tuple[str | Cell, ...]:
    strike = "" if row.strike is None else f"{row.strike:,.10g}"
    return row.kind, str(row.expiry or ""), strike, row.option_type


def _share_cells(row: Instrument) -> tuple[str | Cell, ...]:
    return row.series, row.isin, row.description


def _price(price: float | None, precision: int) -> str:
    return "" if price is None else f"{price:,.{precision}f}"


def _print_notes(loaded: Loaded, found: int, shown: int, near: str) -> None:
    notes = []
    if found > shown:
        notes.append(f"{shown} of {found:,}; --limit 0 shows all")
    elif not found:
        hint = f": {near}" if near else ""
        notes.append(f"none of {loaded.instruments:,} instruments matches{hint}")
    if loaded.is_stale:
        notes.append(f"today's file could not be downloaded: this is the one of {loaded.day}")
    if loaded.bad_row_count:
        notes.append(f"{loaded.bad_row_count:,} rows of the file could not be read:")
        notes += [
            f"  line {row.line}, token {row.token or '?'}: {row.reason}"
            for row in loaded.bad_rows[:_BAD_ROWS_SHOWN]
        ]
    output.print_notes(notes)
