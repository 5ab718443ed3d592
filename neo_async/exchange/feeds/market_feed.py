"""The market feed: who listens to which instrument, and the packets that tell them of it.

What changes is looked at once per interval: each packet is encoded once for each instrument and
level, whoever takes it, and a subscriber that is slow finds the newest packet of each waiting.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
from aiohttp import web

from neo_async.exchange.engine.indices import IndexSnapshot
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.session_stats import MarketSnapshot, SessionStats
from neo_async.exchange.engine.trading_hours import Phase
from neo_async.exchange.engine.types import Index, Listing
from neo_async.exchange.faults.feed_faults import FeedFaults
from neo_async.exchange.faults.plan import FaultPlan
from neo_async.exchange.feeds.connections import POLICY, ClientConnection, PauseSwitch
from neo_async.exchange.feeds.settings import AuthAnswer, FeedSettings
from neo_async.exchange.replay.recorded import NOTHING, Recorded, RecordedInstrument
from neo_async.exchange.rest.logins import Login, Logins
from neo_async.exchange.venue import Venue
from neo_async.model.enums import Level, Segment
from neo_async.model.ticks import (
    AuctionTick,
    DepthRow,
    IndexTick,
    LiteTick,
    MarketState,
    MarketStatus,
    ScripTick,
)
from neo_async.wire.feed import (
    ACKNOWLEDGED,
    AUCTION,
    AUTH_CONNECTED,
    AUTH_FAILED,
    AUTH_OK,
    EXCHANGE_IDS,
    HEADER,
    INDEX,
    MARKET_CLOSED,
    MARKET_OPENED,
    PICTURE,
    STATUS,
    FeedEncoder,
    Stream,
    batches,
    split,
)
from neo_async.wire.lenient import UNREADABLE

BUDGET: Final = 3000
"""Instruments that one connection may have subscribed, each kind counted."""
MAX_MESSAGE: Final = (1 << 20) - 1
"""Bytes; the official SDK takes no larger message than 1 MiB."""
BACKLOG: Final = 8 << 20
"""Bytes of ready-made messages kept for a slow subscriber; older ones are dropped."""

_FULL_ROWS: Final = 20
_DEPTH_ROWS: Final = 5
_SLICE: Final = 50
"""Instruments handled before others get their turn on the loop."""
_TOKEN_END: Final = HEADER.size + 4
_NS: Final = 1_000_000_000
_OVER_BUDGET: Final = 1
_NOT_UNDERSTOOD: Final = 2

_NOBODY: Final = DepthRow(0, 0.0, 0)
_LEVELS: Final = {
    Stream.SCRIP: Level.SCRIP,
    Stream.DEPTH: Level.DEPTH,
    Stream.FULL_DEPTH: Level.FULL_DEPTH,
}
_RECORDED_STREAMS: Final = {
    Level.LITE: Stream.LITE,
    2: Stream.SCRIP,
    Level.SCRIP: Stream.SCRIP,
    Level.DEPTH: Stream.DEPTH,
    Level.FULL_DEPTH: Stream.FULL_DEPTH,
}
_STATUS_CODES: Final = frozenset({STATUS, MARKET_OPENED, MARKET_CLOSED})
_EVENTS: Final = {
    f"{action}{stream.value}": (action, stream)
    for action in ("subscribe", "unsubscribe", "snapshot")
    for stream in Stream
    if (action, stream) not in (("snapshot", Stream.FULL_DEPTH), ("snapshot", Stream.EXCHANGE))
}
_STATUS_TEXTS: Final = {MarketState.OPEN: "OPEN", MarketState.CLOSED: "CLOSE"}
_OLD_STATUS_CODES: Final = {
    MarketState.OPEN: MARKET_OPENED,
    MarketState.CLOSED: MARKET_CLOSED,
}


def _state(phase: Phase) -> MarketState:
    """Before the open, a market is closed to prices."""
    return MarketState.OPEN if phase is Phase.OPEN else MarketState.CLOSED


_encode = msgspec.json.Encoder().encode
_pause = asyncio.sleep


class _Auth(msgspec.Struct):
    """What counts of an authentication frame; documents and clients differ in the rest."""

    user: str
    auth: str
    format: str
    source: str = ""
    platform: str = ""


class _Request(msgspec.Struct):
    event: str
    inputtoken: str = ""


_Subject = Listing | Index | RecordedInstrument


class _Topic:
    """One kind of packet of one instrument."""

    __slots__ = ("connections", "index", "key", "listing", "packet", "stream")

    def __init__(self, key: str, stream: Stream, what: _Subject) -> None:
        self.key = key
        """`nse_cm|11536`, with the number also where it was asked for by name."""
        self.stream = stream
        self.listing = what if isinstance(what, Listing) else None
        self.index = what if isinstance(what, Index) else None
        self.connections: dict[MarketFeedConnection, None] = {}
        self.packet = b""
        """The newest one; empty before the first."""

    @property
    def is_recorded(self) -> bool:
        """Whether its packets come from a recording, not from the market."""
        return self.listing is None and self.index is None


class MarketFeedConnection(ClientConnection):
    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        pause_switch: PauseSwitch,
        feed: MarketFeed,
    ) -> None:
        super().__init__(websocket, transport, pause_switch)
        self.topics: dict[tuple[Stream, str], _Topic] = {}
        self.dropped = 0
        """Ready-made messages that a slow reader has lost."""
        self._feed = feed
        self._packets: dict[object, bytes] = {}
        self._queued_bytes = 0

    def offer(self, key: object, packet: bytes) -> None:
        """Send a packet in the next message, in place of an older one with the same key."""
        if not self._packets:
            self._wake_writer()
        self._packets[key] = packet

    def withdraw(self, key: object) -> None:
        self._packets.pop(key, None)

    def enqueue(self, message: str | bytes) -> None:
        self._queued_bytes += len(message)
        while self._queued_bytes > BACKLOG and self._queue:
            self._queued_bytes -= len(self._queue.popleft())
            self.dropped += 1
        super().enqueue(message)

    def _pending(self) -> Iterator[str | bytes]:
        for message in super()._pending():
            self._queued_bytes -= len(message)
            yield message
        packets, self._packets = self._packets, {}
        for batch in batches(list(packets.values()), MAX_MESSAGE):
            yield self._feed.spoiled(batch)


class MarketFeed:
    def __init__(
        self,
        venue: Venue,
        logins: Logins,
        settings: FeedSettings,
        pause_switch: PauseSwitch,
        seed: int,
        plan: FaultPlan,
        recorded: Recorded = NOTHING,
    ) -> None:
        """What is `recorded` comes from `play` alone, at the levels it was recorded at."""
        self._venue = venue
        self._logins_service = logins
        self._settings = settings
        self._pause_switch = pause_switch
        self._random = random.Random(f"{seed}|market feed")
        self._recorded = recorded
        self._newest: dict[tuple[Stream, str], bytes] = {}
        """What `play` has sent last."""
        self.subscribed_once = asyncio.Event()
        """Set with the first subscription."""
        self._market: MatchingEngine = venue.market
        self._board = venue.board
        self._topics: dict[tuple[Stream, str], _Topic] = {}
        self._by_listing: dict[tuple[Segment, str], dict[_Topic, None]] = {}
        self._phases = {each: self._market.phase(each) for each in self._market.segments}
        self._statuses = {each: _state(phase) for each, phase in self._phases.items()}
        self._status_connections: dict[MarketFeedConnection, None] = {}
        self._wake = asyncio.Event()
        self._cuts = 0
        self.connections: dict[MarketFeedConnection, None] = {}
        self.faults = FeedFaults[tuple[_Topic, bytes]](plan, "market", _offer, _offer_stray)
        self.set_exchanges(recorded.exchanges)

    # --- a recording ----------------------------------------------------------------------------

    def play(self, message: bytes) -> None:
        """Send each packet of a recorded message to those who have subscribed it."""
        shares: defaultdict[MarketFeedConnection, bytearray] = defaultdict(bytearray)
        for packet in split(message):
            for connection in self._subscribers(packet):
                shares[connection] += packet
        for connection, share in shares.items():
            connection.enqueue(bytes(share))

    def set_exchanges(self, exchanges: Mapping[str, tuple[int, int]]) -> None:
        """Numbers and dividers, as they are told to whoever connects; clients connect anew."""
        self._exchanges = exchanges
        self._segments = {number: name for name, (number, _) in exchanges.items()}
        self._encoder = FeedEncoder({name: divider for name, (_, divider) in exchanges.items()})
        for connection in self._authenticated():
            connection.abort()

    def _subscribers(self, packet: bytes) -> Iterable[MarketFeedConnection]:
        """Who has subscribed what a recorded packet tells of."""
        _, code, exchange, level, *_ = HEADER.unpack_from(packet)
        if code in _STATUS_CODES:
            return self._status_connections
        stream = Stream.INDEX if code == INDEX else _RECORDED_STREAMS.get(level)
        if stream is None or code not in (INDEX, PICTURE, AUCTION) or len(packet) < _TOKEN_END:
            return ()
        token = int.from_bytes(packet[HEADER.size : _TOKEN_END], "little")
        key = (stream, f"{self._segments.get(exchange, exchange)}|{token}")
        topic = self._topics.get(key)
        if code != AUCTION:
            self._newest[key] = packet
            if topic is not None:
                topic.packet = packet
        return topic.connections if topic is not None else ()

    # --- the market's side ----------------------------------------------------------------------

    def notice(self) -> None:
        """Something may have happened at the market."""
        self._announce_phases()
        if self._topics and (self._market is not self._venue.market or self._market.has_changes):
            self._wake.set()

    def _announce_phases(self) -> None:
        """Tell which segments have opened or closed."""
        for segment, before in self._phases.items():
            phase = self._venue.market.phase(segment)
            if phase is not before:
                self._phases[segment] = phase
                if _state(phase) is not _state(before):
                    self.set_status(_state(phase), segment)

    async def run(self) -> None:
        """Tell subscribers of changes, for ever: the first at once, then one interval apart."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()
            await _pause(self._settings.interval)

    async def flush(self) -> None:
        """Give every subscriber the packets of what has changed since the last flush."""
        self._follow_market()
        news: dict[_Topic, bytes] = {}
        indices: dict[_Topic, Index] = {}
        for count, listing in enumerate(self._market.take_changes(), 1):
            topics = self._by_listing.get((listing.segment, listing.token), {})
            shown = [topic for topic in topics if topic.index is None]
            indices.update({topic: topic.index for topic in topics if topic.index is not None})
            if shown:
                full = any(topic.stream is Stream.FULL_DEPTH for topic in shown)
                snapshot = self._market.market_snapshot(
                    listing, _FULL_ROWS if full else _DEPTH_ROWS
                )
                for topic in shown:
                    news[topic] = self._listing_packet(topic, snapshot)
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        for topic, index in indices.items():
            news[topic] = self._index_packet(self._board.snapshot(index))
        # All at once, so that they share a message.
        for topic, packet in news.items():
            topic.packet = packet
            self.faults.send((topic, packet))

    @property
    def subscribed(self) -> set[str]:
        return {key for _, key in self._topics}

    def publish(self, message: bytes) -> None:
        """Send a ready-made binary message to everyone who has authenticated."""
        for connection in self._authenticated():
            connection.enqueue(message)

    async def until_sent(self) -> None:
        """Wait until everything queued is handed to the sockets."""
        for connection in self._authenticated():
            await connection.idle.wait()

    def set_status(self, state: MarketState, segment: Segment | None = None) -> None:
        """Open or close a market, or all, in word only: orders go on being matched."""
        segments = [segment] if segment else list(self._statuses)
        for each in segments:
            self._statuses[each] = state
        message = b"".join(map(self._status_packet, segments))
        for connection in self._status_connections:
            connection.enqueue(message)

    def send_auction(
        self,
        instrument: str,
        *,
        reference_price: float,
        imbalance_quantity: int = 0,
        imbalance_at_market: int = 0,
    ) -> None:
        """Tell the scrip and depth subscribers of an instrument of its closing call auction."""
        tick = AuctionTick(
            instrument, "", reference_price, imbalance_quantity, imbalance_at_market, 0
        )
        for stream, level in _LEVELS.items():
            topic = self._topics.get((stream, instrument))
            if topic is not None:
                packet = self._auction_packet(tick, level)
                for connection in topic.connections:
                    connection.offer((stream, instrument, "auction"), packet)

    def _follow_market(self) -> None:
        """After a reset there is another market: watch that one, and show all of it."""
        if self._market is self._venue.market:
            return
        self._market = self._venue.market
        self._board = self._venue.board
        for topic in self._topics.values():
            if not topic.is_recorded:
                self._watch(topic)
                topic.packet = self._packet(topic)
                _offer((topic, topic.packet))

    # --- the subscribers' side ------------------------------------------------------------------

    async def serve(self, websocket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        connection = MarketFeedConnection(websocket, transport, self._pause_switch, self)
        self.connections[connection] = None
        writer = asyncio.create_task(connection.write(), name="market feed writer")
        code = 1000
        try:
            if await self._authenticate(connection):
                while (text := await connection.receive()) is not None:
                    await self._answer(connection, text)
            else:
                code = POLICY
        finally:
            del self.connections[connection]
            self._status_connections.pop(connection, None)
            for topic in list(connection.topics.values()):
                self._detach(connection, topic)
            await connection.end(writer, code)

    async def _authenticate(self, connection: MarketFeedConnection) -> bool:
        text = await connection.receive_first()
        login = self._login_of(text) if text is not None else "no authentication frame in time"
        if isinstance(login, str):
            answer = {"message_code": AUTH_FAILED, "message": f"Auth failed: {login}"}
            await connection.send(_encode(answer).decode())
            return False
        connection.login = login
        codes = {
            AuthAnswer.OK: (AUTH_OK,),
            AuthAnswer.CONNECTED_THEN_OK: (AUTH_CONNECTED, AUTH_OK),
            AuthAnswer.CONNECTED: (AUTH_CONNECTED,),
        }[self._settings.auth_answer]
        for code in codes:
            await connection.send(_auth_answer(code, self._exchanges))
        return True

    def _login_of(self, text: str) -> Login | str:
        """Whose frame it is, or what is wrong with it."""
        try:
            frame = msgspec.json.decode(text, type=_Auth)
        except UNREADABLE as error:
            return f"not an authentication frame: {error}"
        if frame.format != "native_batch":
            return f"format {frame.format!r}: only native_batch is served"
        if "NEOTRADEAPI" not in (frame.source, frame.platform):
            return "source must be NEOTRADEAPI"
        login = self._logins_service.trade_login(frame.auth, self._venue.clock())
        if login is None or login.account.ucc != frame.user:
            return "no live session with this user and sid"
        return login

    async def _answer(self, connection: MarketFeedConnection, text: str) -> None:
        try:
            request = msgspec.json.decode(text, type=_Request)
        except UNREADABLE as error:
            return await self._refuse(connection, _NOT_UNDERSTOOD, f"not understood: {error}")
        action, stream = _EVENTS.get(request.event, ("", Stream.EXCHANGE))
        if not action:
            return await self._refuse(
                connection, _NOT_UNDERSTOOD, f"unknown event {request.event!r}"
            )
        if stream is Stream.EXCHANGE:
            return self._answer_status(connection, action)
        self._follow_market()
        wanted = self._find(stream, request.inputtoken)
        if action == "unsubscribe":
            for stream_of, what, _ in wanted.values():
                topic = connection.topics.get((stream_of, _key(what)))
                if topic is not None:
                    self._detach(connection, topic)
            return None
        pairs = {(stream_of, _key(what)) for stream_of, what, _ in wanted.values()}
        if action == "subscribe" and len(connection.topics.keys() | pairs) > BUDGET:
            return await self._refuse(
                connection,
                _OVER_BUDGET,
                f"{len(connection.topics)} instruments are subscribed and {len(pairs)} asked for: "
                f"a connection may have {BUDGET}",
            )
        await connection.send(_acknowledgement(action, wanted))
        topics = []
        for count, (stream_of, what, _) in enumerate(wanted.values(), 1):
            if action == "subscribe":
                topic = self._attach(connection, stream_of, what)
            else:
                topic = _Topic(_key(what), stream_of, what)
            topic.packet = topic.packet or self._packet(topic)
            topics.append(topic)
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        for topic in topics:
            if not topic.is_recorded:
                connection.offer(topic, topic.packet)
            elif topic.packet:  # in line with those that are played
                connection.enqueue(topic.packet)
        if action == "subscribe":
            self.subscribed_once.set()
        return None

    def _answer_status(self, connection: MarketFeedConnection, action: str) -> None:
        if action == "unsubscribe":
            self._status_connections.pop(connection, None)
        elif connection not in self._status_connections:
            self._status_connections[connection] = None
            connection.enqueue(b"".join(map(self._status_packet, self._statuses)))

    async def _refuse(self, connection: MarketFeedConnection, code: int, text: str) -> None:
        await connection.send(
            _encode(
                {
                    "message_code": ACKNOWLEDGED,
                    "message": text,
                    "error_code": code,
                    "description": text,
                    "trading_symbols": {},
                    "data": {},
                }
            ).decode()
        )

    def _find(self, stream: Stream, tokens: str) -> dict[str, tuple[Stream, _Subject, str]]:
        """What the asked-for texts stand for here, and its symbol; unknown ones are left out.

        An index comes as index packets however it was asked for.
        """
        found: dict[str, tuple[Stream, _Subject, str]] = {}
        for text in map(str.strip, tokens.split(",")):
            recorded = self._recorded.find(text)
            if recorded is not None:
                if recorded.is_index or stream is not Stream.INDEX:
                    kind = Stream.INDEX if recorded.is_index else stream
                    found[text] = (kind, recorded, recorded.symbol)
                continue
            segment, _, token = text.partition("|")
            listing = None
            if stream is not Stream.INDEX and segment in self._market.segments:
                listing = self._market.listing_by_token(Segment(segment), token)
            if listing is not None:
                found[text] = (stream, listing, listing.symbol)
            elif (index := self._board.find(segment, token)) is not None:
                found[text] = (Stream.INDEX, index, index.symbol)
        return found

    def _attach(self, connection: MarketFeedConnection, stream: Stream, what: _Subject) -> _Topic:
        key = (stream, _key(what))
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = _Topic(key[1], stream, what)
            self._watch(topic)
            for listing in self._listings(topic):
                self._by_listing.setdefault((listing.segment, listing.token), {})[topic] = None
        topic.connections[connection] = None
        connection.topics[key] = topic
        return topic

    def _detach(self, connection: MarketFeedConnection, topic: _Topic) -> None:
        key = (topic.stream, topic.key)
        del connection.topics[key]
        del topic.connections[connection]
        connection.withdraw(topic)
        if not topic.connections:
            del self._topics[key]
            for listing in self._listings(topic):
                if self._market is self._venue.market:
                    self._market.unwatch(listing)
                topics = self._by_listing[listing.segment, listing.token]
                del topics[topic]
                if not topics:
                    del self._by_listing[listing.segment, listing.token]

    def _watch(self, topic: _Topic) -> None:
        for listing in self._listings(topic):
            self._market.watch(listing)

    def _listings(self, topic: _Topic) -> list[Listing]:
        """Whose trades show in the topic's packets."""
        if topic.index is not None:
            return self._board.members(topic.index)
        return [topic.listing] if topic.listing is not None else []

    def _authenticated(self) -> list[MarketFeedConnection]:
        return [connection for connection in self.connections if connection.login is not None]

    # --- faults ---------------------------------------------------------------------------------

    def send_garbage(self) -> None:
        """Bytes that are no packet and text that is no frame, to everyone."""
        for connection in self._authenticated():
            connection.enqueue(self._random.randbytes(self._random.randint(1, 400)))
            connection.enqueue("\x00{message_code:" + self._random.randbytes(8).hex())

    def truncate(self, count: int) -> None:
        """Cut each of the next `count` batches somewhere."""
        self._cuts += count

    def spoiled(self, batch: bytes) -> bytes:
        if not self._cuts:
            return batch
        self._cuts -= 1
        return batch[: self._random.randrange(1, len(batch))]

    # --- packets --------------------------------------------------------------------------------

    def _packet(self, topic: _Topic) -> bytes:
        if topic.index is not None:
            return self._index_packet(self._board.snapshot(topic.index))
        if topic.listing is None:
            return self._newest.get((topic.stream, topic.key), b"")
        rows = _FULL_ROWS if topic.stream is Stream.FULL_DEPTH else _DEPTH_ROWS
        return self._listing_packet(topic, self._market.market_snapshot(topic.listing, rows))

    def _listing_packet(self, topic: _Topic, snapshot: MarketSnapshot) -> bytes:
        """Empty when a price is more than the wire has room for, which keeps that listing silent
        and the others going: four bytes and a divider of ten million end at 429 rupees.
        """
        try:
            if topic.stream is Stream.LITE:
                return self._encoder.lite(_lite_tick(topic.key, snapshot.listing, snapshot.stats))
            return self._encoder.scrip(_scrip_tick(topic.key, _LEVELS[topic.stream], snapshot))
        except struct.error:
            return b""

    def _index_packet(self, snapshot: IndexSnapshot) -> bytes:
        index, stats = snapshot.index, snapshot.stats
        tick = IndexTick(
            "",
            "",
            index.name,
            int(index.token),
            stats.last_price / 100,
            stats.last_trade_ns // _NS,
            stats.open / 100,
            stats.high / 100,
            stats.low / 100,
            index.close / 100,
            0.0,
            _percent(stats.last_price, index.close),
            stats.year_high / 100,
            stats.year_low / 100,
            2,
            1.0,
            0,
        )
        return self._encoder.index(index.segment, tick)

    def _status_packet(self, segment: Segment) -> bytes:
        state = self._statuses[segment]
        if self._settings.old_status and state in _OLD_STATUS_CODES:
            code = _OLD_STATUS_CODES[state]
            return HEADER.pack(HEADER.size, code, EXCHANGE_IDS[segment], 0, 0, 0, 0)
        return self._encoder.status(MarketStatus(segment, state, _STATUS_TEXTS.get(state, ""), 0))

    def _auction_packet(self, tick: AuctionTick, level: Level) -> bytes:
        packet = self._encoder.auction(tick, level)
        if self._settings.long_auctions:
            return struct.pack("<H", 48) + packet[2:] + bytes(15)
        return packet


def _offer(news: tuple[_Topic, bytes]) -> None:
    topic, packet = news
    for connection in topic.connections:
        connection.offer(topic, packet)


def _offer_stray(news: tuple[_Topic, bytes]) -> None:
    """Behind the newest of the same instrument, not in its place."""
    topic, packet = news
    for connection in topic.connections:
        connection.offer((topic, "stray"), packet)


def _key(what: _Subject) -> str:
    return f"{what.segment}|{what.token}"


def _auth_answer(code: int, exchanges: Mapping[str, tuple[int, int]]) -> str:
    return _encode(
        {
            "message_code": code,
            "id": "SFD_EMBEDDED_1",
            "format": "native_batch",
            "version": 1,
            "exchanges": {
                name: {"value": number, "divider": divider}
                for name, (number, divider) in exchanges.items()
            },
        }
    ).decode()


def _acknowledgement(action: str, wanted: dict[str, tuple[Stream, _Subject, str]]) -> str:
    """With the map that the official SDK reads and the one that is documented."""
    return _encode(
        {
            "message_code": ACKNOWLEDGED,
            "message": "Subscribed" if action == "subscribe" else "Snapshot",
            "error_code": 0,
            "description": "SUBSCRIBED" if action == "subscribe" else "SNAPSHOT",
            "trading_symbols": {text: symbol for text, (_, _, symbol) in wanted.items()},
            "data": {
                text: {"cas_status": int(_has_auction(what)), "trading_symbols": symbol}
                for text, (_, what, symbol) in wanted.items()
            },
        }
    ).decode()


def _has_auction(what: _Subject) -> bool:
    """Whether it takes part in the closing auction: shares and funds at the NSE do."""
    return isinstance(what, Listing) and what.segment is Segment.NSE_CM


def _percent(price: int, close: int) -> float:
    return (price - close) * 100 / close if close else 0.0


def _lite_tick(key: str, listing: Listing, stats: SessionStats) -> LiteTick:
    close = listing.base_price
    return LiteTick(
        key,
        "",
        stats.last_price / 100,
        stats.last_trade_ns // _NS,
        stats.last_quantity,
        close / 100,
        (stats.last_price - close) / 100,
        _percent(stats.last_price, close),
        listing.lot_size,
        2,
        1,
        0,
    )


def _scrip_tick(key: str, level: Level, snapshot: MarketSnapshot) -> ScripTick:
    listing, stats = snapshot.listing, snapshot.stats
    close = listing.base_price
    return ScripTick(
        key,
        "",
        level,
        stats.last_price / 100,
        stats.last_trade_ns // _NS,
        snapshot.changed_ns // _NS,
        stats.last_quantity,
        stats.open / 100,
        stats.high / 100,
        stats.low / 100,
        close / 100,
        stats.value / stats.volume / 100 if stats.volume else 0.0,
        stats.volume,
        stats.value / 100,
        snapshot.total_buy_quantity,
        snapshot.total_sell_quantity,
        stats.open_interest,
        (stats.last_price - close) / 100,
        _percent(stats.last_price, close),
        listing.upper_band / 100,
        listing.lower_band / 100,
        stats.year_high / 100,
        stats.year_low / 100,
        listing.lot_size,
        2,
        1,
        False,
        _rows(snapshot.bids, level),
        _rows(snapshot.asks, level),
        0,
    )


def _rows(levels: list[tuple[int, int, int]], level: Level) -> tuple[DepthRow, ...]:
    """Best first. One and five a side have that many rows whatever the book holds."""
    if level is Level.FULL_DEPTH:
        return tuple(DepthRow(quantity, price / 100, orders) for price, quantity, orders in levels)
    count = 1 if level is Level.SCRIP else _DEPTH_ROWS
    rows = [DepthRow(quantity, price / 100, orders) for price, quantity, orders in levels[:count]]
    return tuple(rows + [_NOBODY] * (count - len(rows)))
