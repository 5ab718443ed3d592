"""Instruments by any of their names in the shell.

A key (`nse_cm:2885`) and an index (`nse_cm:Nifty 50`) need no scrip master. For a trading symbol or
a name, that of the segment is read from disk, or downloaded once a day. A text without a segment
means NSE: a share or fund, else a contract.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, NamedTuple, TypeAlias

import typer

import neo_async
from neo_async.cli import output
from neo_async.cli.connection import Account
from neo_async.cli.parameters import completer
from neo_async.client import NeoClient
from neo_async.errors import BrokerError, InvalidField, NeoError, TransportError
from neo_async.market_data.contract_query import read_contract
from neo_async.market_data.instruments import Instruments
from neo_async.model.enums import Segment, Side
from neo_async.model.instrument_names import is_token, key_of, read_name
from neo_async.model.instruments import Instrument
from neo_async.wire.rules import check_symbol, read_segment

HELP = "nse_cm:2885, nse_cm:RELIANCE-EQ, RELIANCE, 'nse_cm:Nifty 50' or 'NIFTY 24500 CE'."
"""Help of an argument that names an instrument."""

_CONTRACT_SYMBOL = re.compile(r"[A-Z&-]+[0-9].*(?:CE|PE|FUT)")
_OF_CONTRACTS = (Segment.NSE_FO, Segment.BSE_FO, Segment.MCX_FO)
"""Segments in which a name without a segment is looked for as an underlying, in this order."""

segment_completer = completer(Segment)
ordered_completer = completer([*Segment, *Side])
"""The shell does not know how many words the name of an instrument has: a side may follow."""


def checked_name(text: str) -> str:
    """Parse an argument that names an instrument: return it where it may."""
    try:
        read_name(text)
    except InvalidField:
        raise typer.BadParameter(f"{text!r}: must be such as {HELP.removesuffix('.')}") from None
    return text


InstrumentName: TypeAlias = Annotated[
    str, typer.Argument(metavar="INSTRUMENT", parser=checked_name, help=HELP)
]
InstrumentNames: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="INSTRUMENT", parser=checked_name, help=HELP)
]


class Name(NamedTuple):
    """The name of an instrument, as one text, and its segment."""

    text: str
    segment: Segment
    symbol: str | None = None
    """The trading symbol, where it is given apart from its segment: `nse_cm ITBEES-EQ`."""


def read_words(words: Sequence[str]) -> Name:
    """Return the name that these words are: `nse_cm ITBEES-EQ`, `nse_cm:ITBEES-EQ`, `ITBEES` or
    `NIFTY 24500 CE`. Raises UsageError when they cannot name an instrument."""
    first, *rest = words
    joined = " ".join(words)
    if not rest:
        return _named(joined)
    try:
        segment = read_segment(first)
    except InvalidField:
        if is_contract(joined):
            return _named(joined)
        raise
    text = f"{segment}:{' '.join(rest)}"
    if len(rest) == 1 and not is_token(rest[0]):
        check_symbol(rest[0])
        return Name(text, segment, rest[0])
    return _named(text)


def _named(text: str) -> Name:
    segment, _ = _segment_and_rest(text)
    return Name(text, segment)


def _segment_and_rest(text: str) -> tuple[Segment, str]:
    segment, rest = read_name(key_of(text) or text)
    if segment is None:
        segment = Segment.NSE_FO if is_contract(rest) else Segment.NSE_CM
    return segment, rest


def read_keys(account: Account, texts: Sequence[str]) -> list[str]:
    """Return the keys of instruments, without repeats. Raises UsageError for one that is not
    known."""
    keys = {text: key_of(text) for text in dict.fromkeys(texts)}
    unknown = [text for text, key in keys.items() if key is None]
    if unknown:
        found = neo_async.run(_look_up(account, unknown))
        keys |= {text: one.key for text, one in zip(unknown, found, strict=True)}
    return list(dict.fromkeys(key for key in keys.values() if key is not None))


def read_listed_key(account: Account, text: str) -> str:
    """Return the key of one instrument. Raises UsageError also where today's scrip master is on
    disk and does not have the token."""
    (key,) = read_keys(account, [text])

    async def absence() -> str:
        async with _scrip_masters(account) as instruments:
            segment, _ = read_name(key)
            if segment is not None:
                await instruments.load_kept(segment)
            return instruments.resolver.absence(key)

    if reason := neo_async.run(absence()):
        raise InvalidField("instrument", text, reason)
    return key


def read_ordered(account: Account, name: Name) -> tuple[str, Instrument | None]:
    """Return the trading symbol of the instrument of an order, and its row of the scrip master;
    None where that cannot be loaded. Raises UsageError for an instrument that is not known."""
    _, segment, symbol = name
    if symbol is None:
        instrument = neo_async.run(_look_up(account, [name.text]))[0]
        return instrument.symbol, instrument

    async def check() -> Instrument | None:
        async with _scrip_masters(account) as instruments:
            try:
                await _load(instruments, segment)
            except NeoError as error:
                # The symbol may be right. The broker checks it.
                output.print_sentence(f"{symbol} is not checked: {error}", err=True)
                return None
            instruments.resolver.check_symbol(segment, symbol)
            return instruments.find(segment, symbol)

    return symbol, neo_async.run(check())


def read_underlying(
    account: Account, words: Sequence[str], *, download: bool = False
) -> tuple[Segment, str]:
    """Return the segment of contracts and the underlying, given as `nse_fo NIFTY` or in one word.
    Raises UsageError where the scrip master is on disk, or with `download` can be had, and has no
    such contracts."""

    async def find() -> tuple[Segment, str]:
        async with _scrip_masters(account) as instruments:
            if len(words) == 1:
                return await _find_underlying(instruments, words[0])
            segment = read_segment(words[0])
            if download:
                with contextlib.suppress(TransportError, BrokerError):
                    await _load(instruments, segment)
            else:
                await instruments.load_kept(segment)
            return instruments.resolver.underlying(segment, words[1])

    return neo_async.run(find())


async def _find_underlying(instruments: Instruments, text: str) -> tuple[Segment, str]:
    segment, rest = read_name(key_of(text) or text)
    if segment is not None:
        if is_token(rest):
            await _load(instruments, segment)
        return instruments.resolver.underlying(None, text)
    for place in _OF_CONTRACTS:
        await _load(instruments, place)
        with contextlib.suppress(InvalidField):
            return instruments.resolver.underlying(place, text)
    return instruments.resolver.underlying(_OF_CONTRACTS[0], text)


async def _look_up(account: Account, texts: Sequence[str]) -> list[Instrument]:
    async with _scrip_masters(account) as instruments:
        return [await _look_up_one(instruments, text) for text in texts]


async def _look_up_one(instruments: Instruments, text: str) -> Instrument:
    segment, rest = _segment_and_rest(text)
    await _load(instruments, segment)
    return instruments.resolve(f"{segment}|{rest}")


def is_contract(text: str) -> bool:
    """Return whether a text without a segment is a contract: in words, or its trading symbol."""
    return read_contract(text) is not None or bool(_CONTRACT_SYMBOL.fullmatch(text.upper()))


async def _load(instruments: Instruments, segment: Segment) -> None:
    with output.progress_bar(f"scrip master of {segment}", is_bytes=True) as show:
        await instruments.load(segment, progress=lambda _, done, total: show(done, total))


@contextlib.asynccontextmanager
async def _scrip_masters(account: Account) -> AsyncIterator[Instruments]:
    """Return the instruments of a client that does not log in: scrip masters need no login."""
    neo = NeoClient(account.credentials, endpoints=account.endpoints)
    try:
        yield neo.instruments
    finally:
        await neo.logout()
