"""The two live streams: market data, and the account's orders and positions.

Both stay connected by themselves. Consumers simply go on; what happened shows in `state`,
`reconnects`, `last_gap` and the events.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import re
import reprlib
import time
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
)
from datetime import UTC, datetime, timedelta, timezone
from types import TracebackType
from typing import Self
from weakref import WeakSet

from neo_async import logs
from neo_async.config import FeedTimings
from neo_async.errors import (
    LoginFailed,
    NotLoggedIn,
    ProtocolError,
    SessionEnded,
    TransportError,
    UsageError,
)
from neo_async.feeds.buffers import DEFAULT_BOUND, Messages, Policy, delivery
from neo_async.feeds.recorder import Recording
from neo_async.model.enums import Level
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.session import Session
from neo_async.model.ticks import LiteTick, MarketState, MarketStatus, ScripTick, Tick
from neo_async.model.updates import OrderUpdate, PositionUpdate
from neo_async.session.manager import SessionManager
from neo_async.text import shown
from neo_async.transport.redaction import Secrets
from neo_async.transport.websocket import ReconnectingSocket, Socket
from neo_async.wire.columns import ColumnDecoder, Columns
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
from neo_async.wire.order_feed import (
    HEARTBEAT,
    Connected,
    Refused,
    handshake_text,
    read_message,
)

log = logging.getLogger(logs.FEEDS)

BUDGET = 3000
"""Subscriptions one connection may hold, an instrument at two levels counting twice: whether the
broker counts it once is not documented, and this side is safe."""

BURST = 256
"""Ticks after which everything else in the loop has a turn, however many more have arrived: less
than a millisecond of work, whatever their level."""

LOGIN_LOOK_EVERY = 1.0
"""Seconds between two looks whether the program has logged in again, where the broker refuses the
login that a feed would need."""

IST = timezone(timedelta(hours=5, minutes=30), "IST")

_INSTRUMENT = re.compile(r"[a-z]{1,16}_[a-z]{1,16}\|[^|,]{1,64}")


class _Feed:
    """What both streams have in common."""

    _connection: ReconnectingSocket
    _manager: SessionManager
    _timings: FeedTimings
    _session: Session | None = None
    """The login that the present connection was opened with."""
    _renewed_at: float | None = None
    """Time of the loop at which a login was made for this stream; None once one was accepted."""

    @property
    def name(self) -> str:
        return self._connection.name

    @property
    def state(self) -> FeedState:
        return self._connection.state

    @property
    def reason(self) -> str:
        """Why the connection was lost last, or why the login was refused; empty before that."""
        return self._connection.reason

    @property
    def refusal(self) -> str:
        """Why the feed makes no other try before the program has logged in again: the broker
        refuses the login. Empty while it does not."""
        return self._connection.refusal

    @property
    def is_live(self) -> bool:
        return self._connection.is_live

    @property
    def reconnects(self) -> int:
        """Times it was live again after a loss."""
        return self._connection.reconnects

    @property
    def stalls(self) -> int:
        """Times that silence in an open market was taken for a loss."""
        return self._connection.stalls

    @property
    def last_gap(self) -> float | None:
        """Seconds from the last loss until it was live again; None before the first."""
        return self._connection.last_gap

    @property
    def last_message_at(self) -> float:
        """Time of the loop at the last message; 0 before the first."""
        return self._connection.last_message_at

    def on_event(self, listener: Callable[[FeedEvent], None]) -> None:
        """Call `listener` at every change of state."""
        self._connection.on_event(listener)

    def on_live(self, listener: Callable[[], None]) -> None:
        """Call `listener` each time the feed is live, the first time too."""

        def at_event(event: FeedEvent) -> None:
            if event.state is FeedState.LIVE:
                listener()

        self._connection.on_event(at_event)

    async def until_live(self) -> None:
        """Wait until the server has accepted us.

        Raises TransportError when the feed is closed meanwhile, or the broker refuses the login.
        """
        await self._connection.until_live()

    async def close(self) -> None:
        await self._connection.close()

    async def _renew(self) -> None:
        """Renew the login that the server refused, unless somebody has done so meanwhile.

        A server that refuses new logins, too, is not for want of another one. When the broker
        refuses the login itself, this waits for the program to log in again: MPIN and codes are not
        tried over and over, for that locks an account.
        """
        if self._session is None:
            return
        now = asyncio.get_running_loop().time()
        wait = self._timings.between_logins
        if self._renewed_at is not None and now < self._renewed_at + wait:
            log.warning("a new login was refused as well: no other one within %.0f s", wait)
            return
        self._renewed_at = now
        try:
            await self._manager.renew(self._session)
        except SessionEnded:
            self._renewed_at = None  # it was not made: the broker could not be reached
            raise
        except LoginFailed as error:
            self._renewed_at = None
            log.error(
                "the %s waits for a new login, for the broker refuses it: %s", self.name, error
            )
            self._connection.refuse(f"the broker refuses the login ({error}): log in again")
            await self._until_next_login(self._session)

    async def _until_next_login(self, ended: Session) -> None:
        while self._is_current(ended):  # noqa: ASYNC110 - a login has no event
            await asyncio.sleep(LOGIN_LOOK_EVERY)

    def _is_current(self, session: Session) -> bool:
        try:
            return self._manager.current is session
        except NotLoggedIn:
            return True

    async def __aenter__(self) -> Self:
        self._connection.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state}, {self.reconnects} reconnects>"


class _SubscribedFeed(_Feed, ABC):
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
        await self._wish(_stream(level), instruments)

    async def unsubscribe(self, instruments: Iterable[str], *, level: Level = Level.SCRIP) -> None:
        await self._unwish(_stream(level), instruments)

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
        stream = _stream(level)
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
        return at is not None and at.date() == datetime.now(IST).date() and _is_hour(segment, at)

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


class _OneTurn:
    """Lets the loop turn once where it is awaited."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class MarketFeed(_SubscribedFeed):
    """Ticks of the instruments subscribed.

        async with neo.market_feed() as feed:
            await feed.subscribe(["nse_cm|11536"], level=Level.DEPTH)
            async for tick in feed: ...

    One consumer iterates; `on_tick` takes a callback instead, which is called for every tick in
    the moment of its arrival and must not block.
    """

    def __init__(
        self,
        session: SessionManager,
        timings: FeedTimings,
        *,
        policy: Policy = Policy.CONFLATE,
        bound: int = DEFAULT_BOUND,
        on_tick: Callable[[Tick], None] | None = None,
        market_open: Callable[[], bool] | None = None,
    ) -> None:
        """`bound` is the number of ticks at which BLOCK and DROP_OLDEST set in. `market_open` says
        whether silence is suspicious; by default the clock in IST and the status messages do."""
        super().__init__(session, timings, market_open)
        self._delivery = delivery(Policy(policy), bound)
        self._on_tick = on_tick
        # By level, then instrument: a pair as the key costs more to make than this whole look-up.
        self._latest: defaultdict[int, dict[str, Tick]] = defaultdict(dict)
        self._since_turn = 0
        self.ticks = 0
        """Ticks decoded so far."""

    async def __aiter__(self) -> AsyncIterator[Tick]:
        while True:
            # A consumer that breaks off and comes back goes on with what is in hand.
            for tick in self._delivery.in_hand:
                yield tick
            if not await self._delivery.refill():
                return

    async def batches(self) -> AsyncIterator[list[Tick]]:
        """The ticks in the lists in which they become available: one step a burst."""
        if ticks := list(self._delivery.in_hand):
            yield ticks
        while ticks := await self._delivery.take():
            yield ticks

    def latest(self, instrument: str, *, level: Level | None = None) -> Tick | None:
        """The newest tick of an instrument, at one level or at any."""
        if level is not None:
            return self._latest[level].get(instrument)
        found = [tick for key in _LEVELS if (tick := self._latest[key].get(instrument)) is not None]
        return max(found, key=lambda tick: tick.received_ns, default=None)

    def last_price(self, instrument: str) -> float | None:
        """Of the newest tick of an instrument that is subscribed; None when there was none yet, or
        the feed is not live."""
        tick = self.last_tick(instrument)
        return None if tick is None else tick.last_price

    def last_tick(self, instrument: str) -> LiteTick | ScripTick | None:
        """The newest tick with a price of an instrument that is subscribed, at whatever level; None
        when there was none yet, or the feed is not live. Its `received_ns` tells its age."""
        if not self.is_live:
            return None
        if not any(instrument in self._wished[stream] for stream in STREAM_OF_LEVEL.values()):
            return None
        ticks = [
            tick
            for level in STREAM_OF_LEVEL
            if (tick := self._latest[level].get(instrument)) is not None
            and isinstance(tick, LiteTick | ScripTick)
            and 0 < tick.last_price < math.inf
        ]
        return max(ticks, key=lambda tick: tick.received_ns, default=None)

    @property
    def lost(self) -> int:
        """Ticks that the policy conflated or dropped because the consumer was slower."""
        return self._delivery.lost

    @property
    def pending(self) -> int:
        """Ticks that wait for the consumer."""
        return self._delivery.pending

    async def close(self) -> None:
        """Disconnect; iteration ends when what is pending has been taken."""
        await super().close()
        self._delivery.close()

    def _drop_ticks(self, name: str) -> None:
        for of_level in self._latest.values():
            of_level.pop(name, None)

    def _take(self, message: bytes) -> Awaitable[None] | None:
        ticks = self._decoder.decode(message, time.time_ns())
        if not ticks:
            self._warn_of_unasked()
            return None
        latest = self._latest
        lite = latest[Level.LITE]
        unasked = False
        for tick in ticks:
            if tick.__class__ is LiteTick:  # the commonest kind, the shortest way
                lite[tick.instrument] = tick
                continue
            if tick.__class__ is MarketStatus:
                self._note_status(tick)  # it counts for the feed itself, whoever asked for it
                if not self._wished[Stream.EXCHANGE]:
                    unasked = True
                    continue
            latest[tick.level][tick.instrument] = tick
        if unasked:
            before = len(ticks)
            ticks = [tick for tick in ticks if tick.__class__ is not MarketStatus]
            self._decoder.unasked += before - len(ticks)
        self.ticks += len(ticks)
        self._manager.meter.ticks += len(ticks)
        held: Awaitable[None] | None = None
        if self._on_tick is not None:
            self._call_back(ticks)
        else:
            held = self._delivery.put(ticks)
        self._since_turn += len(ticks)
        if held is None and self._since_turn >= BURST:
            held = _OneTurn()
        if held is not None:
            self._since_turn = 0
        return held

    def _call_back(self, ticks: list[Tick]) -> None:
        assert self._on_tick is not None
        for tick in ticks:
            try:
                self._on_tick(tick)
            except (Exception, asyncio.CancelledError):  # the latter from a future of its own
                log.exception("the callback of the market feed failed on %r", tick)


class ColumnFeed(_SubscribedFeed):
    """Packets of one level as columns of numpy arrays, all that have come since the last step.

        async with neo.column_feed(level=Level.LITE) as feed:
            await feed.subscribe(instruments, level=Level.LITE)
            async for columns in feed:
                columns["token"], columns["last_price"]

    A consumer that is slow gets larger arrays. Beyond `bound` bytes the oldest messages are
    dropped, and counted in `lost`.
    """

    def __init__(
        self,
        session: SessionManager,
        timings: FeedTimings,
        *,
        level: Level = Level.LITE,
        bound: int = 64 << 20,
        market_open: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(session, timings, market_open)
        _stream(level)
        self._columns = ColumnDecoder(Level(level))
        self._messages = Messages(bound)
        self._asked = self._columns.keys([])
        self._asked_at = -1
        """Changes of the decoder at which `_asked` was made."""
        self._others = 0

    async def __aiter__(self) -> AsyncIterator[Columns]:
        while messages := await self._messages.take():
            if self._asked_at != self._decoder.changes:
                self._asked_at = self._decoder.changes
                self._asked = self._columns.keys(self._decoder.asked_keys())
            columns = self._columns.decode(messages, self._decoder.dividers, self._asked)
            self._manager.meter.ticks += len(columns)
            self._others += columns.unasked
            if len(columns):
                yield columns

    @property
    def unasked(self) -> int:
        """Packets and trading symbols that the server sent of instruments that are not subscribed:
        they are dropped."""
        return super().unasked + self._others

    async def close(self) -> None:
        """Disconnect; iteration ends when what is pending has been taken."""
        await super().close()
        self._messages.close()

    @property
    def lost(self) -> int:
        """Messages dropped because the consumer was slower."""
        return self._messages.lost

    def _take(self, message: bytes) -> None:
        self._messages.put(message)


class OrderFeed(_Feed):
    """Orders and positions of the account, also those made in the broker's app.

    async for update in neo.order_updates(): ...
    """

    def __init__(self, session: SessionManager, timings: FeedTimings) -> None:
        self._manager = session
        self._timings = timings
        self._as_json = False
        self._secrets = Secrets()
        """What was sent with the last login here."""
        self._listeners: list[Callable[[OrderUpdate | PositionUpdate], None]] = []
        # Weak: an iterator that nobody holds any more collects nothing.
        self._iterators: WeakSet[_Updates] = WeakSet()
        self._connection = ReconnectingSocket(
            "order feed",
            address=lambda: session.current.realtime_url,
            handshake=self._introduce,
            handle=self._handle,
            renew=self._renew,
            expects_data=lambda: False,  # a quiet account is no sign of anything
            timings=timings,
            tls=session.tls,
            meter=session.meter,
            heartbeat_text=HEARTBEAT,
        )

    def start(self) -> None:
        """Connect and stay connected; `async with` does it."""
        self._connection.start()

    def listen(self, listener: Callable[[OrderUpdate | PositionUpdate], None]) -> None:
        """Call `listener` with every update, in the moment of its arrival."""
        self._listeners.append(listener)

    def ignore(self, listener: Callable[[OrderUpdate | PositionUpdate], None]) -> None:
        """Call `listener` no longer."""
        self._listeners.remove(listener)

    def updates(self) -> AsyncIterator[OrderUpdate | PositionUpdate]:
        """Every update from now on, until the feed is closed. Nothing is conflated: the consumer
        must keep up."""
        iterator = _Updates()
        self._iterators.add(iterator)
        return iterator

    async def close(self) -> None:
        """Disconnect; iteration ends when what has come has been taken."""
        await super().close()
        for iterator in self._iterators:
            iterator.put(None)
        self._iterators.clear()

    async def _introduce(self, socket: Socket) -> None:
        """Say who we are in one of the two forms; the next try uses the other unless this one was
        understood. Servers were seen that drop the raw form, and such that drop JSON."""
        session = self._session = self._manager.current
        self._secrets = Secrets(session.token, session.sid)
        as_json, self._as_json = self._as_json, not self._as_json
        await socket.send(handshake_text(session.token, session.sid, as_json=as_json))
        while True:
            received = await socket.receive()
            with self._secrets.kept_out_of_errors():
                message = read_message(received)
                if isinstance(message, Refused):
                    self._as_json = as_json
                    raise SessionEnded(f"the order feed refused the login: {message.text}")
            if message is not None:
                break
        self._as_json = as_json
        self._renewed_at = None
        if not isinstance(message, Connected):
            self._tell_listeners(message)

    def _handle(self, text: bytes | str) -> None:
        try:
            message = read_message(text)
        except ProtocolError as error:
            self._secrets.scrub_error(error)
            log.warning("order feed: %s", error)
            return
        if isinstance(message, Refused):
            text = self._secrets.scrub(message.text)
            raise SessionEnded(f"the order feed ended the login: {text}")
        if message is not None and not isinstance(message, Connected):
            self._tell_listeners(message)

    def _tell_listeners(self, update: OrderUpdate | PositionUpdate) -> None:
        self._manager.meter.order_updates += 1
        for iterator in self._iterators:
            iterator.put(update)
        for listener in [*self._listeners]:
            try:
                listener(update)
            except (Exception, asyncio.CancelledError):  # the latter from a future of its own
                log.exception("a listener of the order feed failed on %r", update)


class _Updates(AsyncIterator[OrderUpdate | PositionUpdate]):
    """One consumer's own queue."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[OrderUpdate | PositionUpdate | None] = asyncio.Queue()

    def put(self, update: OrderUpdate | PositionUpdate | None) -> None:
        """None ends the iteration."""
        self._queue.put_nowait(update)

    async def __anext__(self) -> OrderUpdate | PositionUpdate:
        update = await self._queue.get()
        if update is None:
            self.put(None)
            raise StopAsyncIteration
        return update


_EQUITY_HOURS = (9 * 60 + 15, 15 * 60 + 30)
_HOURS: Mapping[str, tuple[int, int]] = {
    "mcx_fo": (9 * 60, 23 * 60 + 30),
    "cde_fo": (9 * 60, 17 * 60),
}
"""Minutes of the day in IST between which a segment trades."""


def is_trading_time(segments: Iterable[str], at: float) -> bool:
    """Whether any of the segments trades at that time of the week, in Unix seconds. Holidays and
    special sessions are not known."""
    moment = datetime.fromtimestamp(at, IST)
    return any(_is_session(segment, moment) for segment in segments)


def is_in_session(segment: str) -> bool:
    """Whether a segment trades at this time of the week, by this machine's clock. Holidays and
    special sessions are not known."""
    return _is_session(segment, datetime.now(IST))


def _is_session(segment: str, at: datetime) -> bool:
    return at.weekday() < 5 and _is_hour(segment, at)


def _is_hour(segment: str, at: datetime) -> bool:
    start, end = _HOURS.get(segment, _EQUITY_HOURS)
    return start <= at.hour * 60 + at.minute < end


_LEVELS = (Level.LITE, 2, Level.SCRIP, Level.DEPTH, Level.FULL_DEPTH, 0, -1, -2)
"""Of all ticks; 2 cannot be subscribed, but is sent."""


def _stream(level: Level) -> Stream:
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
