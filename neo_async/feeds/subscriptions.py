"""Subscriptions of one market feed connection: those desired against those sent.

Pure: it makes the frames and leaves it to the feed to send them. It keeps three sets of names.

- *desired*: what the program has subscribed. It survives reconnects.
- *sent*: what was requested on the present connection. It begins empty on each connection, so that
  the difference between the two is what has to be sent on a new one as well as on a live one.
- *snapshots*: instruments of which one tick each was requested, the newest last. Their number is
  bounded, for nothing shows when the tick of a snapshot has come.

The broker does not document whether an instrument at two levels is one subscription or two; here
it counts twice, which is safe.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from neo_async.base.text import shown
from neo_async.errors import UsageError
from neo_async.model.enums import Level
from neo_async.model.indices import exact_index_name
from neo_async.model.instrument_names import known_key
from neo_async.model.instruments import Instrument, InstrumentLike
from neo_async.model.spellings import member_of
from neo_async.wire.feed import STREAM_OF_LEVEL, Stream, subscription_frame

BUDGET = 3000
"""Subscriptions one connection may hold, an instrument at two levels counting twice."""

_NAMES_SHOWN = 8
"""Most names in one log line."""

_INSTRUMENT = re.compile(r"[a-z]{1,16}_[a-z]{1,16}\|[^|,]{1,64}")
_KEY = re.compile(r"[a-z]{1,16}_[a-z]{1,16}\|[0-9]{1,64}")
_PRICED = frozenset(STREAM_OF_LEVEL.values())
"""Streams whose ticks carry the prices of an instrument."""


class Subscriptions:
    """The names that are desired, those that were sent, and the frames that make them equal."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        # Dicts as ordered sets: frames list the names in the order of the calls.
        self._desired: dict[Stream, dict[str, None]] = {stream: {} for stream in Stream}
        self._sent: dict[Stream, dict[str, None]] = {stream: {} for stream in Stream}
        self._snapshots: dict[str, None] = {}
        self._awaited: dict[str, dict[Stream, float]] = {}
        """By name and stream, the time at which a subscription was sent that is not acknowledged
        yet."""

    @property
    def count(self) -> int:
        """Number of desired subscriptions that count against the budget."""
        return sum(len(names) for stream, names in self._desired.items() if _is_counted(stream))

    @property
    def segments(self) -> set[str]:
        """Segments of the desired instruments and indices."""
        return {
            name.partition("|")[0]
            for stream, names in self._desired.items()
            if _is_counted(stream)
            for name in names
        }

    @property
    def wants_status(self) -> bool:
        """Whether the market status is desired."""
        return bool(self._desired[Stream.EXCHANGE])

    def has_prices(self, instrument: str) -> bool:
        """Return whether the instrument is desired at a level whose ticks carry its price."""
        return any(instrument in self._desired[stream] for stream in _PRICED)

    @property
    def has_any_price(self) -> bool:
        """Whether an instrument is desired, or a snapshot was requested."""
        return bool(self._snapshots) or any(self._desired[stream] for stream in _PRICED)

    def is_used(self, name: str) -> bool:
        """Return whether the name is desired on any stream, or a snapshot of it was requested."""
        return name in self._snapshots or any(name in names for names in self._desired.values())

    def add(self, stream: Stream, names: Iterable[str]) -> list[str]:
        """Desire these names too, and return those that are new.

        Raises UsageError, and adds none, when the budget would be exceeded.
        """
        desired = self._desired[stream]
        new = [name for name in names if name not in desired]
        if _is_counted(stream) and self.count + len(new) > self._budget:
            raise UsageError(
                f"{len(new)} more subscriptions on {self.count}: the broker allows "
                f"{self._budget} on a connection; unsubscribe some or open a second feed"
            )
        desired.update(dict.fromkeys(new))
        return new

    def remove(self, stream: Stream, names: Iterable[str]) -> list[str]:
        """Desire these names no longer, and return those that are not used in any other way."""
        for name in names:
            self._desired[stream].pop(name, None)
            self._end_waiting(stream, name)
        return [name for name in names if not self.is_used(name)]

    def add_snapshots(self, names: Iterable[str]) -> list[str]:
        """Take note that snapshots of these names are requested, and return the older names that
        are forgotten for them and not used in any other way."""
        names = list(names)
        for name in names:
            self._snapshots.pop(name, None)
            self._snapshots[name] = None
        surplus = len(self._snapshots) - max(self._budget, len(names))
        if surplus <= 0:
            return []
        oldest = list(self._snapshots)[:surplus]
        for name in oldest:
            del self._snapshots[name]
        return [name for name in oldest if not self.is_used(name)]

    def reset_sent(self) -> None:
        """Begin a new connection, on which nothing was sent."""
        for sent in self._sent.values():
            sent.clear()
        self._awaited.clear()

    def acknowledge(self, names: Iterable[str]) -> None:
        """Take note that the server has acknowledged these names. An acknowledgement does not name
        the stream: it counts for the subscription that was sent first."""
        for name in names:
            if streams := self._awaited.get(name):
                self._end_waiting(min(streams, key=streams.__getitem__), name)

    def unacknowledged(self, sent_by: float) -> list[tuple[Stream, str]]:
        """Return the subscriptions that were sent until a time and are not acknowledged."""
        return [
            (stream, name)
            for name, streams in self._awaited.items()
            for stream, sent_at in streams.items()
            if sent_at <= sent_by
        ]

    def desired(self) -> Iterator[tuple[Stream, str]]:
        """Yield every desired subscription that counts against the budget."""
        for stream, names in self._desired.items():
            if _is_counted(stream):
                for name in names:
                    yield stream, name

    def is_awaited(self, stream: Stream, name: str) -> bool:
        """Return whether the subscription was sent and is not acknowledged."""
        return stream in self._awaited.get(name, ())

    def _end_waiting(self, stream: Stream, name: str) -> None:
        if streams := self._awaited.get(name):
            streams.pop(stream, None)
            if not streams:
                del self._awaited[name]

    def frames(self, now: float) -> Iterator[str]:
        """Yield the frames after which what was sent is what is desired, at most two a stream.

        Each frame is made when it is taken, and its names count as sent from then on: names
        that are added or removed while an earlier frame waits for the socket are taken into account
        as far as their stream is still to come. A caller that adds or removes names takes the
        frames again afterwards. From `now` on, each new name waits for its acknowledgement.
        """
        for stream, desired in self._desired.items():
            sent = self._sent[stream]
            if gone := [name for name in sent if name not in desired]:
                for name in gone:
                    del sent[name]
                yield subscription_frame("unsubscribe", stream, gone)
            if new := [name for name in desired if name not in sent]:
                sent.update(dict.fromkeys(new))
                if _is_counted(stream):  # the market status is not acknowledged
                    for name in new:
                        self._awaited.setdefault(name, {})[stream] = now
                yield subscription_frame("subscribe", stream, new)


def read_level(level: Level | str) -> Level:
    """Return a level by any of its spellings: `Level.DEPTH`, `"depth"` or 8. Raises UsageError."""
    try:
        return member_of(Level, level)
    except ValueError as error:
        raise UsageError(f"level={level!r}: {error}") from None


def named(names: Sequence[str]) -> str:
    """Return the names for a log line or a problem, shortened when there are many."""
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def stream_of(level: Level | str) -> Stream:
    """Return the stream on which instruments are subscribed at a level. Raises UsageError."""
    return STREAM_OF_LEVEL[read_level(level)]


def checked_names(
    stream: Stream,
    instruments: Iterable[InstrumentLike],
    key_of: Callable[[InstrumentLike], str] = known_key,
) -> list[str]:
    """Return the keys of instruments without repeats. Raises UsageError when one is malformed."""
    if isinstance(instruments, str | Instrument):
        raise UsageError(
            f"instruments={reprlib.repr(instruments)}: must be a list of instruments, not one"
        )
    if stream is Stream.EXCHANGE:
        return list(map(str, dict.fromkeys(instruments)))
    if stream is Stream.INDEX:
        return list(dict.fromkeys(_checked_index(one, key_of) for one in instruments))
    return list(dict.fromkeys(checked_name(one, key_of) for one in instruments))


def checked_name(instrument: InstrumentLike, key_of: Callable[[InstrumentLike], str]) -> str:
    """Return the key of an instrument. Raises UsageError when it is malformed."""
    # A key is not looked up: also one of a segment that this package does not know.
    is_key = isinstance(instrument, str) and _KEY.fullmatch(instrument)
    name = str(instrument) if is_key else key_of(instrument)
    _check(name)
    return name


def _checked_index(instrument: InstrumentLike, key_of: Callable[[InstrumentLike], str]) -> str:
    """Return the name of an index; one that this package does not list as it is written."""
    if isinstance(instrument, str) and _INSTRUMENT.fullmatch(instrument):
        segment, _, text = instrument.partition("|")
        is_listed = not text.isdecimal() and exact_index_name(segment, text) is not None
        name = f"{segment}|{exact_index_name(segment, text)}" if is_listed else instrument
    else:
        name = key_of(instrument)
    _check(name)
    return name


def _check(name: str) -> None:
    if not (isinstance(name, str) and _INSTRUMENT.fullmatch(name)):
        raise UsageError(
            f"instrument {reprlib.repr(name)}: must be segment|token, such as "
            "'nse_cm|11536', of at most 64 characters behind the bar"
        )
    if shown(name) != name:
        raise UsageError(f"instrument {name!r}: has characters that cannot be sent")
    token = name.partition("|")[2]
    # Packets carry the token as a number: in another spelling, its ticks would match no name.
    if token.isdecimal() and not (token.isascii() and token == (token.lstrip("0") or "0")):
        raise UsageError(f"instrument {name!r}: the token must be written as 11536 is")


def _is_counted(stream: Stream) -> bool:
    return stream is not Stream.EXCHANGE
