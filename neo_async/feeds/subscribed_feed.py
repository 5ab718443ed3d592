"""A connection to the market feed with its subscriptions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import reprlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
)
from datetime import UTC, datetime

from neo_async import logs
from neo_async.config import FeedTimings
from neo_async.errors import (
    ProtocolError,
    SessionEnded,
    TransportError,
    UsageError,
)
from neo_async.feeds.base import Feed
from neo_async.feeds.recorder import Recording
from neo_async.feeds.trading_hours import is_hour, is_in_session
from neo_async.model.enums import Level
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.india import IST
from neo_async.model.ticks import MarketState, MarketStatus
from neo_async.session.manager import SessionManager
from neo_async.text import shown
from neo_async.transport.redaction import Secrets
from neo_async.transport.websocket import ReconnectingSocket, Socket
from neo_async.wire.feed import (
    ACKNOWLEDGED,
    AUTH_CONNECTED,
    AUTH_FAILED,
    AUTH_OK,
    STREAM_OF_LEVEL,
    FeedDecoder,
    Stream,
    acknowledgement_frame,
    auth_frame,
    read_control,
    subscription_frame,
)

log = logging.getLogger(logs.FEEDS)


BUDGET = 3000
"""Subscriptions one connection may hold, an instrument at two levels counting twice: whether the
broker counts it once is not documented, and this side is safe."""


_INSTRUMENT = re.compile(r"[a-z]{1,16}_[a-z]{1,16}\|[^|,]{1,64}")


class SubscribedFeed(Feed, ABC):
    """A connection to the market feed with its subscriptions; what becomes of the packets is the
    subclass's business."""

    def __init__(
        self,
        session: SessionManager,
        timings: FeedTimings,
        market_open: Callable[[], bool] | None,
    ) -> None:
        self._manager = session
        self._timings = timings
        self._decoder = FeedDecoder(only_asked=True)
        self.market_open = market_open
        """What the caller gave to say whether the market is open; None for the default."""
        self._market_open = market_open or self._is_market_open
        self._closed_at: dict[str, datetime] = {}
        """Of segments that were last reported closed, the time of that in India."""
        # Wishes and facts: what should be subscribed, and what this connection was told.
        self._wished: dict[Stream, dict[str, None]] = {stream: {} for stream in Stream}
        self._told: dict[Stream, dict[str, None]] = {stream: {} for stream in Stream}
        self._snapshots: dict[str, None] = {}
        """Instruments that snapshots were asked of, the newest last."""
        self._telling = asyncio.Lock()
        self._recordings: list[Recording] = []
        self._secrets = Secrets()
        """What was sent with the last login here."""
        self._greeting = ""
        """The server's answer to the last login here; it has the dividers."""
        self.symbols: dict[str, str] = {}
        """Trading symbols by instrument, as the server acknowledged them."""
        self.refusals: deque[str] = deque(maxlen=100)
        """What the server said of subscriptions it did not take, newest last."""
        self._has_warned = False
        """Whether the log has it that this server sends what was not asked for."""
        self._connection = ReconnectingSocket(
            "market feed",
            address=lambda: session.current.feed_url,
            handshake=self._authenticate,
            handle=self._handle,
            renew=self._renew,
            expects_data=self._expects_data,
            timings=timings,
            tls=session.tls,
            meter=session.meter,
        )
        self._connection.on_event(self._mark_gap)

    # --- subscriptions ------------------------------------------------------------------------

    async def subscribe(self, instruments: Iterable[str], *, level: Level = Level.SCRIP) -> None:
        """Subscribe instruments such as `nse_cm|11536`; one may be subscribed at several levels.

        Survives reconnects. Calls made at the same time share a frame. Raises UsageError, and
        subscribes nothing, when an instrument is malformed or the budget would be exceeded. What
        the server does not know is not refused: it gives no ticks, and is not in `symbols`.
        """
        await self._wish(stream_of(level), instruments)

    async def unsubscribe(self, instruments: Iterable[str], *, level: Level = Level.SCRIP) -> None:
        await self._unwish(stream_of(level), instruments)

    async def subscribe_indices(self, instruments: Iterable[str]) -> None:
        """Subscribe indices by name (`nse_cm|Nifty 50`, exact) or number (`nse_cm|26000`)."""
        await self._wish(Stream.INDEX, instruments)

    async def unsubscribe_indices(self, instruments: Iterable[str]) -> None:
        await self._unwish(Stream.INDEX, instruments)

    async def subscribe_status(self) -> None:
        """Subscribe the market status of every segment."""
        await self._wish(Stream.EXCHANGE, [""])

    async def unsubscribe_status(self) -> None:
        await self._unwish(Stream.EXCHANGE, [""])

    async def snapshot(self, instruments: Iterable[str], *, level: Level = Level.SCRIP) -> None:
        """Ask for one tick of each instrument, without subscribing it.

        Raises TransportError when the feed is not live: a snapshot is of now or of no use; and
        UsageError when an instrument is malformed. Ticks of the last 3,000 instruments asked of
        are taken, or of all in one call where those are more.
        """
        stream = stream_of(level)
        if stream is Stream.FULL_DEPTH:
            raise UsageError("level=FULL_DEPTH: the protocol has no snapshot of it")
        await self._snapshot(stream, instruments)

    async def snapshot_indices(self, instruments: Iterable[str]) -> None:
        await self._snapshot(Stream.INDEX, instruments)

    @property
    def subscriptions(self) -> int:
        """How much of the budget of 3,000 is used."""
        return sum(
            len(names) for stream, names in self._wished.items() if stream is not Stream.EXCHANGE
        )

    @property
    def unasked(self) -> int:
        """Ticks and trading symbols that the server sent of instruments that are not subscribed:
        they are dropped."""
        return self._decoder.unasked

    # --- recordings ---------------------------------------------------------------------------

    def record(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Recording:
        """Write to a file what the server sends from now on, with the times of arrival.

            async with feed.record("2026-11-23.feed"): ...

        Ends with `close` of the recording or of the feed. `neo_async.wire.recording` reads the
        file, and the exchange plays it back. Nothing that we send is in it, nor the login.

        Raises UsageError when the file exists already or cannot be made.
        """
        recording = Recording(
            path,
            overwrite=overwrite,
            greeting=self._recorded_greeting,
            on_end=self._recordings.remove,
        )
        self._recordings.append(recording)
        return recording

    async def close(self) -> None:
        await super().close()
        for recording in [*self._recordings]:
            await recording.close()

    def _recorded_greeting(self) -> list[str]:
        """What a recording must begin with, so that the packets behind it can be read."""
        if not self._greeting:
            return []
        return [self._greeting, acknowledgement_frame(self.symbols)]

    def _mark_gap(self, event: FeedEvent) -> None:
        if event.state is FeedState.WAITING:
            for recording in self._recordings:
                recording.mark_gap()

    def _record(self, message: bytes | str) -> None:
        for recording in self._recordings:
            recording.add(message)

    def _without_secrets(self, text: str) -> str:
        """A text message as it is read, logged and recorded: the server has no reason to repeat
        secrets, and files outlive a login."""
        return self._secrets.scrub(text)

    # ------------------------------------------------------------------------------------------

    async def _authenticate(self, socket: Socket) -> None:
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
        async with self._telling:
            for told in self._told.values():
                told.clear()
            await self._tell(socket.send)

    async def _until_accepted(self, socket: Socket) -> str:
        """The answer that says so."""
        answer = ""
        with contextlib.suppress(TimeoutError):  # 1119 and not 1117 after it
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
            self._record(message)
        if isinstance(message, str):
            self._handle_control(message)
            return None
        return self._take(message)

    @abstractmethod
    def _take(self, message: bytes) -> Awaitable[None] | None:
        """Take over one binary message; an awaitable when the next one must wait."""

    def _handle_control(self, text: str) -> None:
        try:
            control = read_control(text)
        except ProtocolError as error:
            log.warning("market feed: %s", error)
            return
        if control.message_code == AUTH_FAILED:
            raise SessionEnded(control.text, code=control.message_code)
        if control.message_code == AUTH_OK:  # after 1119, and after we had gone on without it
            self._decoder.set_exchanges(control)
        if control.message_code != ACKNOWLEDGED:
            return
        if control.error_code:
            log.warning("market feed: subscription refused: %s", shown(control.text))
            self.refusals.append(control.text)
        self.symbols.update(self._decoder.set_symbols(control.symbols))
        self._warn_of_unasked()

    def _warn_of_unasked(self) -> None:
        """Say once that a server sends what was not asked for."""
        if self.unasked and not self._has_warned:
            self._has_warned = True
            log.warning("market feed: the server sends what is not subscribed: it is dropped")

    def _note_status(self, status: MarketStatus) -> None:
        if status.code in (MarketState.CLOSED, MarketState.CLOSING_ENDED):
            self._closed_at[status.segment] = datetime.now(IST)
        else:
            self._closed_at.pop(status.segment, None)

    def _expects_data(self) -> bool:
        if not self.subscriptions:
            return False
        try:
            return self._market_open()
        except (Exception, asyncio.CancelledError):
            log.exception("market_open failed: the clock decides whether the market is open")
            return self._is_market_open()

    def _is_market_open(self) -> bool:
        """Whether any subscribed segment trades at this time of the week, as far as is known."""
        segments = {
            name.partition("|")[0]
            for stream, names in self._wished.items()
            for name in names
            if stream is not Stream.EXCHANGE
        }
        return any(is_in_session(each) and not self._is_closed_today(each) for each in segments)

    def _is_closed_today(self, segment: str) -> bool:
        """Whether the segment was reported closed during the hours of today. What was reported
        before they began, or on another day, says nothing of them."""
        at = self._closed_at.get(segment)
        return at is not None and at.date() == datetime.now(IST).date() and is_hour(segment, at)

    # --- wishes and facts ---------------------------------------------------------------------

    async def _wish(self, stream: Stream, instruments: Iterable[str]) -> None:
        names = _checked(stream, instruments)
        new = [name for name in names if name not in self._wished[stream]]
        if stream is not Stream.EXCHANGE and self.subscriptions + len(new) > BUDGET:
            raise UsageError(
                f"{len(new)} more subscriptions on {self.subscriptions}: the broker allows "
                f"{BUDGET} on a connection; unsubscribe some or open a second feed"
            )
        self._wished[stream].update(dict.fromkeys(new))
        if stream is not Stream.EXCHANGE:
            self._decoder.ask(new)
        await self._tell_if_live()

    async def _unwish(self, stream: Stream, instruments: Iterable[str]) -> None:
        names = _checked(stream, instruments)
        for name in names:
            self._wished[stream].pop(name, None)
        self._forget(names)
        await self._tell_if_live()

    def _forget(self, names: Iterable[str]) -> None:
        """Drop what is kept of instruments that nothing is asked of any more."""
        gone = [
            name
            for name in names
            if name not in self._snapshots
            and not any(name in wished for wished in self._wished.values())
        ]
        self._decoder.forget(gone)
        for name in gone:
            self.symbols.pop(name, None)
            self._drop_ticks(name)

    def _drop_ticks(self, name: str) -> None:
        """Forget the ticks of an instrument, where a subclass keeps them."""

    async def _snapshot(self, stream: Stream, instruments: Iterable[str]) -> None:
        names = _checked(stream, instruments)
        if not names:
            return
        for name in names:
            self._snapshots.pop(name, None)
            self._snapshots[name] = None
        self._decoder.ask(names)
        if (surplus := len(self._snapshots) - max(BUDGET, len(names))) > 0:
            oldest = list(self._snapshots)[:surplus]
            for name in oldest:
                del self._snapshots[name]
            self._forget(oldest)
        if not await self._connection.send(subscription_frame("snapshot", stream, names)):
            raise TransportError("the market feed is not connected: await feed.until_live() first")

    async def _tell_if_live(self) -> None:
        # One turn of the loop, so that calls made together go out together.
        await asyncio.sleep(0)
        async with self._telling:
            if self._connection.is_live:
                await self._tell(self._connection.send)

    async def _tell(self, send: Callable[[str], Awaitable[object]]) -> None:
        """Send what the server was not told yet: a frame a stream, whatever the number."""
        for stream, wished in self._wished.items():
            told = self._told[stream]
            # What is wished while a frame has to wait for room is not in it.
            if gone := [name for name in told if name not in wished]:
                for name in gone:
                    del told[name]
                await send(subscription_frame("unsubscribe", stream, gone))
            if new := [name for name in wished if name not in told]:
                told.update(dict.fromkeys(new))
                await send(subscription_frame("subscribe", stream, new))


def stream_of(level: Level) -> Stream:
    try:
        return STREAM_OF_LEVEL[Level(level)]
    except ValueError:
        codes = ", ".join(f"{member.value} ({member.name})" for member in Level)
        raise UsageError(f"level={level!r}: must be one of {codes}") from None


def _checked(stream: Stream, instruments: Iterable[str]) -> list[str]:
    """The names without repeats."""
    if isinstance(instruments, str):
        raise UsageError(f"instruments={instruments!r}: must be a list of such texts, not one text")
    names = list(dict.fromkeys(instruments))
    if stream is not Stream.EXCHANGE:
        for name in names:
            if not (isinstance(name, str) and _INSTRUMENT.fullmatch(name)):
                raise UsageError(
                    f"instrument {reprlib.repr(name)}: must be segment|token, such as "
                    "'nse_cm|11536', of at most 64 characters behind the bar"
                )
            if shown(name) != name:
                raise UsageError(f"instrument {name!r}: has characters that cannot be sent")
            token = name.partition("|")[2]
            if token.isdecimal() and not (token.isascii() and token == (token.lstrip("0") or "0")):
                raise UsageError(f"instrument {name!r}: the token must be written as 11536 is")
    return names
