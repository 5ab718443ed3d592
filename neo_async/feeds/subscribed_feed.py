"""A connection to the market feed: login, subscriptions, recordings.

`MarketFeed` and `ColumnFeed` build on it and differ in how they deliver what arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import filterfalse
from typing import Self, TypeAlias

from neo_async.base import logs
from neo_async.base.logs import logger_of
from neo_async.base.text import shown
from neo_async.calendar import Calendar
from neo_async.config import FeedTimings
from neo_async.errors import ProtocolError, SessionEnded, TransportError, UsageError
from neo_async.feeds.base import Feed
from neo_async.feeds.recorder import Recording
from neo_async.feeds.subscriptions import (
    Subscriptions,
    checked_name,
    checked_names,
    named,
    stream_of,
)
from neo_async.feeds.trading_hours import MarketHours
from neo_async.model.enums import Level
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.instrument_names import is_index_key
from neo_async.model.instruments import InstrumentLike
from neo_async.session.manager import SessionManager
from neo_async.transport.redaction import Secrets
from neo_async.transport.websocket import ReconnectingSocket, Socket
from neo_async.wire.feed import (
    ACKNOWLEDGED,
    AUTH_CONNECTED,
    AUTH_FAILED,
    AUTH_OK,
    FeedDecoder,
    Stream,
    acknowledgement_frame,
    auth_frame,
    read_control,
    subscription_frame,
)

ACKNOWLEDGED_WITHIN = 5.0
"""Seconds after which a subscription without acknowledgement is reported."""

KeyOf: TypeAlias = Callable[[InstrumentLike], str]
"""Returns the key of an instrument, `nse_cm|2885`, by any of its names. Raises UsageError."""


class SubscribedFeed(Feed, ABC):
    """A connection to the market feed with its subscriptions; a subclass delivers the packets."""

    def __init__(
        self,
        session: SessionManager,
        timings: FeedTimings,
        market_open: Callable[[], bool] | None,
        calendar: Calendar,
        key_of: KeyOf,
    ) -> None:
        """`key_of` reads the names of instruments in subscriptions."""
        self._manager = session
        self._log = logger_of(logs.FEEDS, session.ucc)
        self._timings = timings
        self._key_of = key_of
        self._decoder = FeedDecoder(only_asked=True)
        self.market_open = market_open
        """The caller's function that returns whether the market is open; None for the default."""
        self._market_open = market_open or self._is_market_open
        self._hours = MarketHours(calendar)
        self._subscriptions = Subscriptions()
        self._syncing = asyncio.Lock()
        """Lock held while frames are sent, so that those of two calls do not mix."""
        self._recordings: list[Recording] = []
        self._secrets = Secrets()
        """The secrets of the last login sent here."""
        self._greeting = ""
        """The server's answer to the last login here; it has the dividers."""
        self.symbols: dict[str, str] = {}
        """Trading symbols by instrument, as the server acknowledged them."""
        self.refusals: deque[str] = deque(maxlen=100)
        """The server's texts about subscriptions it refused, newest last."""
        self._overdue: dict[tuple[Stream, str], None] = {}
        """Subscriptions whose overdue acknowledgement was logged, in this order."""
        self._was_opened = False
        """Whether the `async with` block was entered."""
        self._has_warned = False
        """Whether the log has a warning that this server sends what is not subscribed."""
        self._connection = ReconnectingSocket(
            "market feed",
            address=lambda: session.current.feed_url,
            handshake=self._log_in,
            handle=self._handle,
            renew=self._renew,
            expects_data=self._expects_data,
            timings=timings,
            tls=session.tls,
            meter=session.meter,
            log=session.transport_log,
        )
        self._connection.on_event(self._mark_gap)

    # --- subscriptions ------------------------------------------------------------------------

    async def subscribe(
        self, instruments: Iterable[InstrumentLike], *, level: Level | str | None = None
    ) -> None:
        """Subscribe instruments, at the feed's level unless another is given; one may be subscribed
        at several levels. Each is an Instrument, a key such as `nse_cm|11536`, or a trading symbol
        of a scrip master that is loaded. An index (`nse_cm|Nifty 50`) is subscribed as by
        `subscribe_indices`, whatever the level. A level may be text, as in `level="depth"`.

        Survives reconnects. Calls made at the same time share a frame. The server does not refuse
        unknown instruments, it is silent: what it has not acknowledged 5 s after the request is
        logged as a warning, and stays in `unacknowledged` and among the problems of
        `neo.health()`. Raises UsageError, and subscribes nothing, when an instrument is malformed,
        the budget would be exceeded, or the level's ticks are not those of this feed.
        """
        stream = stream_of(self._checked_level(level))
        names, indices = self._split(stream, instruments)
        await self._subscribe(stream, names, indices)

    async def unsubscribe(
        self, instruments: Iterable[InstrumentLike], *, level: Level | str | None = None
    ) -> None:
        """Unsubscribe instruments at one level, the feed's unless another is given. Those that are
        not subscribed are passed over."""
        stream = stream_of(self._checked_level(level))
        names, indices = self._split(stream, instruments)
        await self._unsubscribe(stream, names, indices)

    async def snapshot(
        self, instruments: Iterable[InstrumentLike], *, level: Level | str | None = None
    ) -> None:
        """Request one tick of each instrument, at the feed's level unless another is given, without
        subscribing it. An index is requested as by `snapshot_indices`.

        Raises TransportError when the feed is not live, for a snapshot shows the present moment;
        and UsageError when an instrument is malformed. Ticks of the last 3,000 instruments
        requested are delivered, or of all in one call where those are more.
        """
        stream = stream_of(self._checked_level(level))
        if stream is Stream.FULL_DEPTH:
            raise UsageError("level=FULL_DEPTH: the protocol has no snapshot of it")
        names, indices = self._split(stream, instruments)
        await self._snapshot(stream, names)
        await self._snapshot(Stream.INDEX, indices)

    @property
    def unacknowledged(self) -> tuple[str, ...]:
        """Subscriptions that the server has not acknowledged within 5 s, and of which no tick has
        arrived, as `nse_cm|999999 (SCRIP)`. Such an instrument may not exist."""
        return tuple(
            f"{name} ({stream.name})"
            for stream, name in self._overdue
            if not self._has_tick(stream, name)
        )

    @property
    def subscriptions(self) -> int:
        """Number of subscriptions that count against the budget of 3,000."""
        return self._subscriptions.count

    @property
    def unasked(self) -> int:
        """Number of ticks and trading symbols that the server sent of instruments that are not
        subscribed: they are dropped."""
        return self._decoder.unasked

    @abstractmethod
    def _checked_level(self, level: Level | str | None) -> Level:
        """Return the level of a call, the feed's own for None. Raises UsageError for one whose
        ticks the feed cannot deliver."""

    def _has_tick(self, stream: Stream, name: str) -> bool:
        """Return whether a tick of a subscription is known to have arrived."""
        return False

    def _key(self, instrument: InstrumentLike) -> str:
        return checked_name(instrument, self._key_of)

    def _names(self, stream: Stream, instruments: Iterable[InstrumentLike]) -> list[str]:
        return checked_names(stream, instruments, self._key_of)

    def _split(
        self, stream: Stream, instruments: Iterable[InstrumentLike]
    ) -> tuple[list[str], list[str]]:
        """Return the names of instruments, and those of indices, which have their own stream."""
        names = self._names(stream, instruments)
        indices = list(filter(is_index_key, names))
        return (list(filterfalse(is_index_key, names)) if indices else names), indices

    async def _subscribe(
        self, stream: Stream, names: list[str], indices: Sequence[str] = ()
    ) -> None:
        new = self._subscriptions.add(stream, names)
        try:
            new += self._subscriptions.add(Stream.INDEX, indices)
        except UsageError:
            self._subscriptions.remove(stream, new)
            raise
        if stream is not Stream.EXCHANGE:
            self._decoder.ask(new)
        await self._sync_if_live()

    async def _unsubscribe(
        self, stream: Stream, names: list[str], indices: Sequence[str] = ()
    ) -> None:
        unused = self._subscriptions.remove(stream, names)
        self._forget(unused + self._subscriptions.remove(Stream.INDEX, indices))
        for name in names:
            self._overdue.pop((stream, name), None)
        for name in indices:
            self._overdue.pop((Stream.INDEX, name), None)
        await self._sync_if_live()

    async def _snapshot(self, stream: Stream, names: list[str]) -> None:
        if not names:
            return
        unused = self._subscriptions.add_snapshots(names)
        self._decoder.ask(names)
        if unused:
            self._forget(unused)
        if not await self._connection.send(subscription_frame("snapshot", stream, names)):
            raise TransportError("the market feed is not connected: await feed.until_live() first")

    @property
    def _is_over(self) -> bool:
        """Whether the feed was closed, so that nothing comes any more."""
        return self._was_opened and self.state is FeedState.CLOSED

    def _check_iterable(self) -> None:
        """Raise UsageError where iterating would wait for ever, and warn where it may."""
        if not self._was_opened:
            raise UsageError(
                "the market feed is not open: iterate it inside its `async with` block, or after "
                "`feed.start()`"
            )
        if not self._subscriptions.has_any_price:
            loop = asyncio.get_running_loop()
            loop.call_later(ACKNOWLEDGED_WITHIN, self._warn_of_nothing)

    def _warn_of_nothing(self) -> None:
        if not self.is_live or self._subscriptions.has_any_price:
            return
        hint = "; indices come from its indices()" if self.subscriptions else ""
        self._log.warning(
            "market feed: it is iterated, and no instrument is subscribed: no tick will come%s",
            hint,
        )

    def _forget(self, unused: Iterable[str]) -> None:
        """Drop everything that is kept of names that are not used any more."""
        self._decoder.forget(unused)
        for name in unused:
            self.symbols.pop(name, None)
            self._drop_ticks(name)

    async def _sync_if_live(self) -> None:
        # One turn of the loop, so that calls made together are sent together.
        await asyncio.sleep(0)
        async with self._syncing:
            if self._connection.is_live:
                await self._sync(self._connection.send)

    async def _sync(self, send: Callable[[str], Awaitable[object]]) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for frame in self._subscriptions.frames(now):
            await send(frame)
            loop.call_at(now + ACKNOWLEDGED_WITHIN, self._warn_of_overdue, now)

    def _warn_of_overdue(self, sent_by: float) -> None:
        """Log the subscriptions sent until a time that are still not acknowledged, each once."""
        overdue = [
            (stream, name)
            for stream, name in self._subscriptions.unacknowledged(sent_by)
            if (stream, name) not in self._overdue and not self._has_tick(stream, name)
        ]
        if not (overdue and self.is_live):
            return
        self._overdue.update(dict.fromkeys(overdue))
        self._log.warning(
            "market feed: no acknowledgement in %.0f s of %s: the server may not know %s",
            ACKNOWLEDGED_WITHIN,
            named([f"{name} ({stream.name})" for stream, name in overdue]),
            "it" if len(overdue) == 1 else "them",
        )

    # --- recordings ---------------------------------------------------------------------------

    def record(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Recording:
        """Write to a file what the server sends from now on, with the times of arrival.

            async with feed.record("2026-11-23.feed"): ...

        Ends with `close` of the recording or of the feed. `neo_async.wire.recording` reads the
        file, and the exchange plays it back. The file has nothing that this side sends, and not the
        login.

        Raises UsageError when the file exists already or cannot be created.
        """
        recording = Recording(
            path,
            overwrite=overwrite,
            greeting=self._recorded_greeting,
            on_end=self._recordings.remove,
            log=self._log,
        )
        self._recordings.append(recording)
        return recording

    def start(self) -> None:
        """Connect and stay connected until `close`, as `async with` does: for notebooks, whose
        cells cannot share an `async with` block."""
        self._was_opened = True
        self._connection.start()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def close(self) -> None:
        """Disconnect, and end the recordings."""
        await super().close()
        for recording in [*self._recordings]:
            await recording.close()

    def _recorded_greeting(self) -> list[str]:
        """Return the texts without which the packets that follow in a recording could not be
        read: the dividers and the trading symbols."""
        if not self._greeting:
            return []
        return [self._greeting, acknowledgement_frame(self.symbols)]

    def _mark_gap(self, event: FeedEvent) -> None:
        if event.state is FeedState.WAITING:
            for recording in self._recordings:
                recording.mark_gap()

    # --- the connection -----------------------------------------------------------------------

    async def _log_in(self, socket: Socket) -> None:
        session = self._session = self._manager.current
        self._secrets = Secrets(session.sid, session.token)
        now = datetime.now(UTC)
        await socket.send(
            auth_frame(
                session.ucc,
                session.sid,
                now_ms=int(now.timestamp() * 1000),
                now_iso=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            )
        )
        self._greeting = await self._until_accepted(socket)
        self._renewed_at = None
        for recording in self._recordings:
            recording.greet()
        async with self._syncing:
            self._subscriptions.reset_sent()
            await self._sync(socket.send)

    async def _until_accepted(self, socket: Socket) -> str:
        """Return the answer that accepts the login.

        Some servers send 1119 (connected) and 1117 (accepted) after it, others 1119 alone. So 1119
        starts a grace period, and at its end the login counts as accepted.
        """
        answer = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as grace:
                while True:
                    message = await socket.receive()
                    if isinstance(message, bytes):
                        continue
                    message = self._without_secrets(message)
                    control = read_control(message)
                    if control.message_code == AUTH_FAILED:
                        raise SessionEnded(control.text, code=control.message_code)
                    if control.format != "native_batch":
                        raise ProtocolError(
                            f"the feed offers format {control.format!r}, not native_batch"
                        )
                    if control.message_code in (AUTH_OK, AUTH_CONNECTED):
                        self._decoder.set_exchanges(control)
                        answer = message
                        if control.message_code == AUTH_OK:
                            break
                        now = asyncio.get_running_loop().time()
                        grace.reschedule(now + self._timings.connected_grace)
        return answer

    def _handle(self, message: bytes | str) -> Awaitable[None] | None:
        if isinstance(message, str):
            message = self._without_secrets(message)
        if self._recordings:
            for recording in self._recordings:
                recording.add(message)
        if isinstance(message, str):
            self._handle_control(message)
            return None
        return self._deliver(message)

    @abstractmethod
    def _deliver(self, message: bytes) -> Awaitable[None] | None:
        """Deliver one binary message; an awaitable when the next one must wait for it."""

    def _drop_ticks(self, name: str) -> None:
        """Drop the ticks of an instrument, where a subclass keeps any."""

    def _without_secrets(self, text: str) -> str:
        """Return a text message as it is read, logged and recorded: the server has no reason to
        repeat secrets, and files outlive a login."""
        return self._secrets.scrub(text)

    def _handle_control(self, text: str) -> None:
        try:
            control = read_control(text)
        except ProtocolError as error:
            self._log.warning("market feed: %s", error)
            return
        if control.message_code == AUTH_FAILED:
            raise SessionEnded(control.text, code=control.message_code)
        if control.message_code == AUTH_OK:  # later than the grace period after 1119
            self._decoder.set_exchanges(control)
        if control.message_code != ACKNOWLEDGED:
            return
        if control.error_code:
            self._log.warning("market feed: subscription refused: %s", shown(control.text))
            self.refusals.append(control.text)
        taken = self._decoder.set_symbols(control.symbols)
        self.symbols.update(taken)
        self._acknowledge([self._decoder.subscribed_as(name) for name in taken])
        self._warn_of_unasked()

    def _acknowledge(self, names: Sequence[str]) -> None:
        self._subscriptions.acknowledge(names)
        if self._overdue:
            waiting = self._subscriptions.is_awaited
            self._overdue = {each: None for each in self._overdue if waiting(*each)}

    def _warn_of_unasked(self) -> None:
        """Log once that the server sends what is not subscribed."""
        if self.unasked and not self._has_warned:
            self._has_warned = True
            self._log.warning("market feed: the server sends what is not subscribed: it is dropped")

    def _expects_data(self) -> bool:
        if not self.subscriptions:
            return False
        try:
            return self._market_open()
        except (Exception, asyncio.CancelledError):
            self._log.exception("market_open failed: the clock decides whether the market is open")
            return self._is_market_open()

    def _is_market_open(self) -> bool:
        """Return whether any subscribed segment trades now, as far as is known."""
        return self._hours.is_open(self._subscriptions.segments)
