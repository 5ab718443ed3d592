"""The order and position feed: everything that happens to an account's orders, as it happens.

A new connection gets the state of every order of the day and of every position, and from then on
each state that an order reaches and each change of a position.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator

import msgspec
from aiohttp import web

from neo_async.exchange.engine.types import (
    Event,
    OrderChanged,
    OrderRecord,
    Position,
    Refusal,
    Transition,
)
from neo_async.exchange.faults.feed_faults import FeedFaults
from neo_async.exchange.faults.odd_values import with_odd_value
from neo_async.exchange.faults.plan import FaultPlan
from neo_async.exchange.feeds.connections import POLICY, ClientConnection, PauseSwitch
from neo_async.exchange.feeds.settings import FeedSettings
from neo_async.exchange.rest.logins import Login, Logins
from neo_async.exchange.rest.order_rows import order_update
from neo_async.exchange.rest.portfolio_rows import position_update
from neo_async.exchange.venue import Venue
from neo_async.wire.lenient import UNREADABLE

BACKLOG = 10_000
"""Updates kept for a client that does not read; one more ends its connection."""

CONNECTED = '{"ak":"ok","type":"cn","task":"cn","msg":"connected"}'
REFUSED = '{"ak":"nk","type":"cn","task":"cn","msg":"Authentication Failed"}'
ALIVE = '{"ak":"ok","type":"hb"}'

_encode = msgspec.json.Encoder().encode


class OrderFeedConnection(ClientConnection):
    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        pause_switch: PauseSwitch,
    ) -> None:
        super().__init__(websocket, transport, pause_switch)
        self._orders: list[tuple[OrderRecord, Transition]] = []
        self._positions: list[Position] = []

    def show(self, orders: list[tuple[OrderRecord, Transition]], positions: list[Position]) -> None:
        """Send the present orders and positions before anything that happens from now on."""
        self._orders, self._positions = orders, positions
        self._wake_writer()

    def enqueue(self, message: str | bytes) -> None:
        if len(self._queue) >= BACKLOG:
            # A client could not notice an update that is left out; a connection
            # that ends makes the client ask for the order book.
            self.abort()
            return
        super().enqueue(message)

    def _pending(self) -> Iterator[str | bytes]:
        orders, self._orders = self._orders, []
        for record, state in orders:
            yield _order_frame(record, state)
        positions, self._positions = self._positions, []
        assert self.login is not None or not positions
        for position in positions:
            yield _position_frame(self.login.account.ucc if self.login else "", position)
        yield from super()._pending()


class OrderFeed:
    def __init__(
        self,
        venue: Venue,
        logins: Logins,
        settings: FeedSettings,
        pause_switch: PauseSwitch,
        seed: int,
        plan: FaultPlan,
    ) -> None:
        self._venue = venue
        self._logins_service = logins
        self.settings = settings
        self._pause_switch = pause_switch
        self._random = random.Random(f"{seed}|order feed")
        self._by_account: dict[str, dict[OrderFeedConnection, None]] = {}
        self.connections: dict[OrderFeedConnection, None] = {}
        self.faults = FeedFaults[tuple[str, str]](
            plan, "orders", self._enqueue, self._enqueue, _with_odd_value
        )

    # --- what happens ---------------------------------------------------------------------------

    def publish(self, events: Iterable[Event]) -> None:
        """Send each event to the clients of its account."""
        if not self._by_account:
            return
        for event in events:
            if isinstance(event, OrderChanged):
                account = event.record.account
                if account in self._by_account:
                    for frame in self._frames(event):
                        self.faults.send((account, frame))

    def _frames(self, event: OrderChanged) -> Iterator[str]:
        record = event.record
        for state in event.step.rows():
            if event.step.fill is not None and self.settings.zero_averages:
                # The fill itself was stamped between this state and the one before, so that a
                # nanosecond less is later than the update before.
                yield _order_frame(
                    record,
                    msgspec.structs.replace(state, average_price=0.0, time_ns=state.time_ns - 1),
                )
            yield _order_frame(record, state)
        if event.position is not None:
            yield _position_frame(record.account, event.position)

    def _enqueue(self, update: tuple[str, str]) -> None:
        account, frame = update
        for connection in self._by_account.get(account, ()):
            connection.enqueue(frame)

    # --- faults ---------------------------------------------------------------------------------

    def send_garbage(self) -> None:
        """Send text that is no JSON, and JSON that is no update, to every client."""
        for connections in self._by_account.values():
            for connection in connections:
                connection.enqueue(
                    '{"type":"order","data":{"nOrdNo":' + self._random.randbytes(6).hex()
                )
                connection.enqueue(_encode(["order", self._random.randrange(1 << 30)]).decode())
                connection.enqueue(self._random.randbytes(self._random.randint(1, 60)))

    # --- the subscribers' side ------------------------------------------------------------------

    async def serve(self, websocket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        connection = OrderFeedConnection(websocket, transport, self._pause_switch)
        self.connections[connection] = None
        code = 1000
        writer = asyncio.create_task(connection.write(), name="order feed writer")
        try:
            if await self._authenticate(connection):
                while (text := await connection.receive()) is not None:
                    if self.settings.answers_heartbeat and _kind(text) == "hb":
                        connection.enqueue(ALIVE)
            else:
                code = POLICY
        finally:
            del self.connections[connection]
            if connection.login is not None:
                ucc = connection.login.account.ucc
                connections = self._by_account.get(ucc, {})
                connections.pop(connection, None)
                if not connections:
                    self._by_account.pop(ucc, None)
            await connection.end(writer, code)

    async def _authenticate(self, connection: OrderFeedConnection) -> bool:
        text = await connection.receive_first()
        login = self._login_of(text or "")
        if login is None:
            await connection.send(REFUSED)
            return False
        await connection.send(CONNECTED)
        ucc = login.account.ucc
        # Taken now, so that nothing older than what `show` sends comes after it.
        market = self._venue.now()
        self.publish(self._venue.take_events())
        connection.login = login
        connection.show(
            [(order, order.steps[-1].rows()[-1]) for order in reversed(market.orders(ucc))],
            market.positions(ucc),
        )
        self._by_account.setdefault(ucc, {})[connection] = None
        return True

    def _login_of(self, text: str) -> Login | None:
        fields = read_handshake(text)
        if fields.get("type") != "cn":
            return None
        sid, now = fields.get("sid", ""), self._venue.clock()
        try:
            return self._logins_service.authorise(sid, fields.get("authorization", ""), now)
        except Refusal:
            return None


def read_handshake(text: str) -> dict[str, str]:
    """Return the fields of a connection request, names in lower case; none when it is not one.

    Written as JSON, or as the broker has it: `{type:cn,Authorization:…,Sid:…,src:WEB}`.
    """
    try:
        content = msgspec.json.decode(text, type=dict[str, object])
        return {name.lower(): str(value) for name, value in content.items()}
    except UNREADABLE:
        pass
    inner = text.strip()
    if not (inner.startswith("{") and inner.endswith("}")):
        return {}
    pairs = (part.partition(":") for part in inner[1:-1].split(","))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _kind(text: str) -> str:
    return read_handshake(text).get("type", "")


def _order_frame(record: OrderRecord, state: Transition) -> str:
    return _encode({"type": "order", "data": order_update(record, state)}).decode()


def _position_frame(account: str, position: Position) -> str:
    return _encode({"type": "position", "data": position_update(account, position)}).decode()


def _with_odd_value(update: tuple[str, str], choice: int) -> tuple[str, str]:
    account, frame = update
    # Numbers that follow each other would pick the same field again and again.
    return account, with_odd_value(frame.encode(), choice * 7919).decode()
