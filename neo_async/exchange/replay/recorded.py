"""The contents of a market feed's recording, read through once before it is replayed."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from neo_async.base import logs
from neo_async.errors import ProtocolError, UsageError
from neo_async.exchange.engine.listings import bands
from neo_async.exchange.engine.types import Listing
from neo_async.model.enums import Level, Segment
from neo_async.model.ticks import IndexTick, LiteTick, ScripTick, Tick
from neo_async.wire.feed import (
    DEFAULT_DIVIDER,
    DIVIDERS,
    EXCHANGE_IDS,
    Control,
    FeedDecoder,
    Stream,
    read_control,
)
from neo_async.wire.recording import RecordingReader, read_recording

log = logging.getLogger(logs.EXCHANGE)

RECORDED_STREAMS: Final[Mapping[int, Stream]] = {
    Level.LITE: Stream.LITE,
    2: Stream.SCRIP,
    Level.SCRIP: Stream.SCRIP,
    Level.DEPTH: Stream.DEPTH,
    Level.FULL_DEPTH: Stream.FULL_DEPTH,
}
"""Streams by the level of their packets."""

_MESSAGES_READ: Final = 1000
"""Binary messages that are still read after every named instrument has been seen."""
_BAND_PERCENT: Final = 20
"""Circuit limits of what was recorded without any."""


class RecordedInstrument(msgspec.Struct, frozen=True):
    segment: str
    token: str
    symbol: str
    """Symbol in the acknowledgement; empty if there was none."""
    is_index: bool
    streams: frozenset[Stream]
    """Levels at which it was recorded; empty for an index."""
    tick: Tick
    """The first; the first with circuit limits, where there is one in the same part of the file."""


class Recorded(msgspec.Struct, frozen=True):
    """Exchanges and instruments of a recording, and when it was made."""

    exchanges: Mapping[str, tuple[int, int]]
    """Number and divider of each, by the server's answer to the first login."""
    instruments: Mapping[str, RecordedInstrument]
    """Instruments by `segment|token`; an index also by its name."""
    first_ns: int = 0
    """Unix nanoseconds of the first frame; 0 for no recording."""

    @property
    def segments(self) -> list[Segment]:
        """Segments of the recorded instruments and indices."""
        names = {instrument.segment for instrument in self.instruments.values()}
        return [Segment(name) for name in sorted(names & _SEGMENTS)]

    def find(self, text: str) -> RecordedInstrument | None:
        return self.instruments.get(text.casefold())

    def listed(self, listings: Iterable[Listing]) -> set[tuple[Segment, str]]:
        """Return segment and token of the listings that are in the recording."""
        return {
            (listing.segment, listing.token)
            for listing in listings
            if f"{listing.segment}|{listing.token}" in self.instruments
        }


NOTHING: Final = Recorded(
    {name: (EXCHANGE_IDS[name], divider) for name, divider in DIVIDERS.items()}, {}
)


def scan_recording(path: Path) -> Recorded:
    """Scan a recording, and block while its file is read. A damaged one is logged as a warning.
    Raises UsageError when it is none, or nothing of it can be played."""
    recording = read_recording(path)
    recorded = _RecordingScanner().read(recording)
    if not recorded.instruments:
        raise UsageError(
            f"{path} cannot be played: {recording.damage or 'it has no tick of any instrument'}"
        )
    if recording.damage:
        log.warning(
            "the recording %s is damaged, and played up to there: %s", path, recording.damage
        )
    return recorded


def relisted(listings: Iterable[Listing], recorded: Recorded) -> tuple[Listing, ...]:
    """Return the instruments of a market in which a recording is played.

    Those recorded have the previous close, circuit limits and lot of their recording. One that was
    not listed is, if it was acknowledged by name, with ticks of one paisa; without a price to
    start from it only streams.
    """
    by_key = {(listing.segment, listing.token): listing for listing in listings}
    for instrument in recorded.instruments.values():
        if instrument.segment in _SEGMENTS and not instrument.is_index:
            key = (Segment(instrument.segment), instrument.token)
            listing = _listing(instrument, by_key.get(key))
            if listing is not None:
                by_key[key] = listing
    return tuple(by_key.values())


def exchanges_of(control: Control) -> dict[str, tuple[int, int]]:
    """Return the exchanges of an answer to a login; none for other frames."""
    return {
        name: (
            EXCHANGE_IDS.get(name, 0) if exchange.value is None else exchange.value,
            exchange.divider or DEFAULT_DIVIDER,
        )
        for name, exchange in control.exchanges.items()
    }


def control_of(text: str) -> Control | None:
    """Return the control frame of a text; None for any other text."""
    try:
        return read_control(text)
    except ProtocolError:
        return None


class _RecordingScanner:
    def __init__(self) -> None:
        self._decoder = FeedDecoder()
        self._exchanges: dict[str, tuple[int, int]] = {}
        self._symbols: dict[str, str] = {}
        self._ticks: dict[str, Tick] = {}
        self._streams: defaultdict[str, set[Stream]] = defaultdict(set)
        self._unseen: set[str] = set()

    def read(self, recording: RecordingReader) -> Recorded:
        messages = first_ns = 0
        for frame in recording:
            first_ns = first_ns or frame.received_ns
            if isinstance(frame.content, str):
                self._read_control(frame.content)
            elif frame.content is not None and (self._unseen or messages < _MESSAGES_READ):
                messages += 1
                self._read_ticks(self._decoder.decode(frame.content, 0))
        instruments = {}
        for tick in self._ticks.values():
            instrument = self._instrument(tick)
            for name in _names(tick):
                instruments[name.casefold()] = instrument
        return Recorded({**NOTHING.exchanges, **self._exchanges}, instruments, first_ns)

    def _read_control(self, text: str) -> None:
        control = control_of(text)
        if control is None:
            return
        if control.exchanges:
            self._decoder.set_exchanges(control)
            self._exchanges = self._exchanges or exchanges_of(control)
        self._unseen.update(control.symbols.keys() - self._symbols.keys() - self._ticks.keys())
        self._symbols.update(control.symbols)
        self._decoder.set_symbols(control.symbols)

    def _read_ticks(self, ticks: Iterable[Tick]) -> None:
        for tick in ticks:
            if isinstance(tick, LiteTick | ScripTick | IndexTick):
                if tick.level in RECORDED_STREAMS:
                    self._streams[tick.instrument].add(RECORDED_STREAMS[tick.level])
                known = self._ticks.get(tick.instrument)
                if known is None or (isinstance(known, LiteTick) and isinstance(tick, ScripTick)):
                    self._ticks[tick.instrument] = tick
                    self._unseen.discard(tick.instrument)

    def _instrument(self, tick: Tick) -> RecordedInstrument:
        segment, _, token = tick.instrument.partition("|")
        is_index = isinstance(tick, IndexTick)
        if isinstance(tick, IndexTick):
            token = str(tick.token)
        symbol = next((self._symbols[name] for name in _names(tick) if name in self._symbols), "")
        streams = frozenset(self._streams[tick.instrument])
        return RecordedInstrument(segment, token, symbol, is_index, streams, tick)


def _names(tick: Tick) -> list[str]:
    """Return the names by which an instrument may be subscribed."""
    if not isinstance(tick, IndexTick):
        return [tick.instrument]
    segment = tick.instrument.partition("|")[0]
    return [f"{segment}|{tick.token}", f"{segment}|{tick.name}"]


def _listing(instrument: RecordedInstrument, listed: Listing | None) -> Listing | None:
    tick = instrument.tick
    assert isinstance(tick, LiteTick | ScripTick)
    close = round((tick.close or tick.last_price) * 100)
    if not close or not (listed or instrument.symbol):
        return listed
    lower, upper = bands(close, _BAND_PERCENT, 1)
    if isinstance(tick, ScripTick) and tick.lower_circuit and tick.upper_circuit:
        lower, upper = round(tick.lower_circuit * 100), round(tick.upper_circuit * 100)
    lot_size = tick.lot_size or 1
    if listed is not None:
        return msgspec.structs.replace(
            listed, base_price=close, lower_band=lower, upper_band=upper, lot_size=lot_size
        )
    name, dash, series = instrument.symbol.rpartition("-")
    return Listing(
        segment=Segment(instrument.segment),
        token=instrument.token,
        symbol=instrument.symbol,
        name=name or instrument.symbol,
        series=series if dash else "",
        lot_size=lot_size,
        tick=1,
        base_price=close,
        lower_band=max(lower, 1),
        upper_band=upper,
    )


_SEGMENTS: Final = frozenset(segment.value for segment in Segment)
