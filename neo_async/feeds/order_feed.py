"""The order feed: updates of the account's orders and positions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol
from weakref import WeakSet

from neo_async.base import logs
from neo_async.base.logs import logger_of
from neo_async.config import FeedTimings
from neo_async.errors import ProtocolError, SessionEnded
from neo_async.feeds.base import Feed
from neo_async.model.feed_state import FeedEvent
from neo_async.model.orders import OrderRow
from neo_async.model.updates import OrderUpdate, PositionUpdate
from neo_async.session.manager import SessionManager
from neo_async.transport.redaction import Secrets
from neo_async.transport.websocket import ReconnectingSocket, Socket
from neo_async.wire.order_feed import HEARTBEAT, Connected, Refused, handshake_text, read_message


class OrderSource(Protocol):
    """The part of the order feed that its subscribers use."""

    @property
    def is_live(self) -> bool: ...

    def start(self) -> None: ...

    def subscribe(self, on_update: Callable[[OrderRow | PositionUpdate], None], /) -> None: ...

    def on_event(self, listener: Callable[[FeedEvent], None], /) -> None: ...


class OrderFeed(Feed):
    """Updates of the account's orders and positions, also of those placed in the broker's app.

    async for update in neo.order_updates(): ...
    """

    def __init__(self, session: SessionManager, timings: FeedTimings) -> None:
        self._manager = session
        self._log = logger_of(logs.FEEDS, session.ucc)
        self._timings = timings
        self._as_json = False
        """Whether the next login is sent as JSON."""
        self._secrets = Secrets()
        """The secrets of the last login sent here."""
        self._subscribers: list[Callable[[OrderUpdate | PositionUpdate], None]] = []
        # Weak: an iterator that is no longer referenced collects nothing.
        self._iterators: WeakSet[_Updates] = WeakSet()
        self._connection = ReconnectingSocket(
            "order feed",
            address=lambda: session.current.realtime_url,
            handshake=self._log_in,
            handle=self._handle,
            renew=self._renew,
            expects_data=lambda: False,  # an account without trades is silent
            timings=timings,
            tls=session.tls,
            meter=session.meter,
            log=session.transport_log,
            heartbeat_text=HEARTBEAT,
        )

    def start(self) -> None:
        """Connect and stay connected; `async with` does it."""
        self._connection.start()

    def subscribe(self, on_update: Callable[[OrderUpdate | PositionUpdate], None]) -> None:
        """Call `on_update` with every update, in the moment of its arrival."""
        self._subscribers.append(on_update)

    def unsubscribe(self, on_update: Callable[[OrderUpdate | PositionUpdate], None]) -> None:
        """Stop calling `on_update`."""
        self._subscribers.remove(on_update)

    def updates(self) -> AsyncIterator[OrderUpdate | PositionUpdate]:
        """Return an iterator over every update from now on, until the feed is closed. Nothing is
        conflated: the consumer must keep up."""
        iterator = _Updates()
        self._iterators.add(iterator)
        return iterator

    async def close(self) -> None:
        """Disconnect; iteration ends after the updates that have already arrived."""
        await super().close()
        for iterator in self._iterators:
            iterator.put(None)
        self._iterators.clear()

    async def _log_in(self, socket: Socket) -> None:
        """Send the login in one of its two forms; the next attempt uses the other one unless this
        one was understood. Servers were seen that drop the raw form, and others that drop JSON."""
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
            # An update in place of the confirmation: the server has accepted the login.
            self._publish(message)

    def _handle(self, text: bytes | str) -> None:
        try:
            message = read_message(text)
        except ProtocolError as error:
            self._secrets.scrub_error(error)
            self._log.warning("order feed: %s", error)
            return
        if isinstance(message, Refused):
            text = self._secrets.scrub(message.text)
            raise SessionEnded(f"the order feed ended the login: {text}")
        if message is not None and not isinstance(message, Connected):
            self._publish(message)

    def _publish(self, update: OrderUpdate | PositionUpdate) -> None:
        self._manager.meter.order_updates += 1
        for iterator in self._iterators:
            iterator.put(update)
        for on_update in [*self._subscribers]:
            try:
                on_update(update)
            except (Exception, asyncio.CancelledError):  # the latter from a future of its own
                self._log.exception("a listener of the order feed failed on %r", update)


class _Updates(AsyncIterator[OrderUpdate | PositionUpdate]):
    """A consumer's own queue of updates."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[OrderUpdate | PositionUpdate | None] = asyncio.Queue()

    def put(self, update: OrderUpdate | PositionUpdate | None) -> None:
        """Queue an update; None ends the iteration."""
        self._queue.put_nowait(update)

    async def __anext__(self) -> OrderUpdate | PositionUpdate:
        update = await self._queue.get()
        if update is None:
            self.put(None)
            raise StopAsyncIteration
        return update
