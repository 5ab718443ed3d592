"""The market feed: subscriptions, and the publication of changes to them.

Changes are published once per interval. Each packet is encoded once for each instrument and level,
however many subscribe it; a slow subscriber gets the newest packet of each instrument.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
from aiohttp import web

from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.trading_hours import Phase
from neo_async.exchange.engine.types import Index, Listing
from neo_async.exchange.faults.feed_faults import FeedFaults
from neo_async.exchange.faults.plan import FaultPlan
from neo_async.exchange.feeds import packets
from neo_async.exchange.feeds.connections import POLICY, PauseSwitch
from neo_async.exchange.feeds.settings import AuthAnswer, FeedSettings
from neo_async.exchange.feeds.topics import (
    MarketFeedConnection,
    Subject,
    Topic,
    key_of,
    offer,
    offer_stray,
)
from neo_async.exchange.replay.lower_levels import BY_DEPTH, RecordedPackets, packet_at
from neo_async.exchange.replay.recorded import NOTHING, RECORDED_STREAMS, Recorded
from neo_async.exchange.rest.logins import Login, Logins
from neo_async.exchange.venue import Venue
from neo_async.model.enums import Segment
from neo_async.model.ticks import (
    AuctionTick,
    MarketState,
)
from neo_async.wire.feed import (
    AUCTION,
    AUTH_CONNECTED,
    AUTH_FAILED,
    AUTH_OK,
    HEADER,
    INDEX,
    MARKET_CLOSED,
    MARKET_OPENED,
    PICTURE,
    STATUS,
    FeedEncoder,
    Stream,
    split,
)
from neo_async.wire.lenient import UNREADABLE

BUDGET: Final = 3000
"""Instruments that one connection may have subscribed, each kind counted."""
_SLICE: Final = 50
"""Instruments handled before others get their turn on the loop."""
_TOKEN_END: Final = HEADER.size + 4
_OVER_BUDGET: Final = 1
_NOT_UNDERSTOOD: Final = 2

_STATUS_CODES: Final = frozenset({STATUS, MARKET_OPENED, MARKET_CLOSED})
_EVENTS: Final = {
    f"{action}{stream.value}": (action, stream)
    for action in ("subscribe", "unsubscribe", "snapshot")
    for stream in Stream
    if (action, stream) not in (("snapshot", Stream.FULL_DEPTH), ("snapshot", Stream.EXCHANGE))
}


def _state(phase: Phase) -> MarketState:
    """Return the state of a market that is sent for a phase: before the open it is closed."""
    return MarketState.OPEN if phase is Phase.OPEN else MarketState.CLOSED


_encode = msgspec.json.Encoder().encode
_pause = asyncio.sleep


class _Auth(msgspec.Struct):
    """The fields checked of an authentication frame; documents and clients differ in the rest."""

    user: str
    auth: str
    format: str
    source: str = ""
    platform: str = ""


class _Request(msgspec.Struct):
    event: str
    inputtoken: str = ""


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
        """Instruments in `recorded` get packets from `play` alone, at their recorded levels."""
        self._venue = venue
        self._logins_service = logins
        self.settings = settings
        self._pause_switch = pause_switch
        self._random = random.Random(f"{seed}|market feed")
        self._recorded = recorded
        self._packets = RecordedPackets(recorded)
        self.subscribed_once = asyncio.Event()
        """Set with the first subscription."""
        self._market: MatchingEngine = venue.market
        self._board = venue.board
        self._topics: dict[tuple[Stream, str], Topic] = {}
        self._by_listing: dict[tuple[Segment, str], dict[Topic, None]] = {}
        self._phases = {each: self._market.phase(each) for each in self._market.segments}
        self._statuses = {each: _state(phase) for each, phase in self._phases.items()}
        self._status_connections: dict[MarketFeedConnection, None] = {}
        self._wake = asyncio.Event()
        self._cuts = 0
        self.connections: dict[MarketFeedConnection, None] = {}
        self.faults = FeedFaults[tuple[Topic, bytes]](plan, "market", offer, offer_stray)
        self.set_exchanges(recorded.exchanges)

    # --- a recording ----------------------------------------------------------------------------

    def play(self, message: bytes) -> None:
        """Send each packet of a recorded message to those who have subscribed it."""
        shares: defaultdict[MarketFeedConnection, bytearray] = defaultdict(bytearray)
        for packet in split(message):
            for topic_packet, connections in self._shares(packet):
                for connection in connections:
                    shares[connection] += topic_packet
        for connection, share in shares.items():
            connection.enqueue(bytes(share))

    def set_exchanges(self, exchanges: Mapping[str, tuple[int, int]]) -> None:
        """Set the numbers and dividers sent to new connections; all clients have to reconnect."""
        self._exchanges = exchanges
        self._segments = {number: name for name, (number, _) in exchanges.items()}
        self._encoder = FeedEncoder({name: divider for name, (_, divider) in exchanges.items()})
        for connection in self._authenticated():
            connection.abort()

    def _shares(self, packet: bytes) -> Iterator[tuple[bytes, Iterable[MarketFeedConnection]]]:
        """Yield the connections that have subscribed a recorded packet's topic, and those that have
        subscribed a lower level which was not recorded, each with their packet."""
        _, code, exchange, level, *_ = HEADER.unpack_from(packet)
        if code in _STATUS_CODES:
            yield packet, self._status_connections
            return
        stream = Stream.INDEX if code == INDEX else RECORDED_STREAMS.get(level)
        if stream is None or code not in (INDEX, PICTURE, AUCTION) or len(packet) < _TOKEN_END:
            return
        token = int.from_bytes(packet[HEADER.size : _TOKEN_END], "little")
        name = f"{self._segments.get(exchange, exchange)}|{token}"
        topic = self._topics.get((stream, name))
        if code == AUCTION:
            if topic is not None:
                yield packet, topic.connections
            return
        self._packets.keep(stream, name, packet)
        if topic is not None:
            topic.packet = packet
            yield packet, topic.connections
        for lower in BY_DEPTH:
            if lower is stream or stream not in BY_DEPTH:
                return
            topic = self._topics.get((lower, name))
            if topic is not None and self._packets.source_of(lower, name) is stream:
                topic.packet = packet_at(lower, packet)
                yield topic.packet, topic.connections

    # --- the market's side ----------------------------------------------------------------------

    def notice(self) -> None:
        """Publish what has changed at the market, soon."""
        self._announce_phases()
        if self._topics and (self._market is not self._venue.market or self._market.has_changes):
            self._wake.set()

    def _announce_phases(self) -> None:
        """Publish which segments have opened or closed."""
        for segment, before in self._phases.items():
            phase = self._venue.market.phase(segment)
            if phase is not before:
                self._phases[segment] = phase
                if _state(phase) is not _state(before):
                    self.set_status(_state(phase), segment)

    async def run(self) -> None:
        """Publish changes for ever: the first at once, then one interval apart."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()
            await _pause(self.settings.interval)

    async def flush(self) -> None:
        """Give every subscriber the packets of what has changed since the last flush."""
        self._follow_market()
        news: dict[Topic, bytes] = {}
        indices: dict[Topic, Index] = {}
        for count, listing in enumerate(self._market.take_changes(), 1):
            topics = self._by_listing.get((listing.segment, listing.token), {})
            shown = [topic for topic in topics if topic.index is None]
            indices.update({topic: topic.index for topic in topics if topic.index is not None})
            if shown:
                full = any(topic.stream is Stream.FULL_DEPTH for topic in shown)
                snapshot = self._market.market_snapshot(
                    listing, packets.FULL_ROWS if full else packets.DEPTH_ROWS
                )
                for topic in shown:
                    news[topic] = packets.listing_packet(self._encoder, topic, snapshot)
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        for topic, index in indices.items():
            news[topic] = packets.index_packet(self._encoder, self._board.snapshot(index))
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
        """Wait until everything queued has been written to the sockets."""
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
        """Send the state of a closing call auction to scrip and depth subscribers."""
        tick = AuctionTick(
            instrument, "", reference_price, imbalance_quantity, imbalance_at_market, 0
        )
        for stream, level in packets.LEVELS.items():
            topic = self._topics.get((stream, instrument))
            if topic is not None:
                packet = packets.auction_packet(
                    self._encoder, tick, level, is_long=self.settings.long_auctions
                )
                for connection in topic.connections:
                    connection.offer((stream, instrument, "auction"), packet)

    def _follow_market(self) -> None:
        """Watch the market that a reset has opened, and send every topic anew."""
        if self._market is self._venue.market:
            return
        self._market = self._venue.market
        self._board = self._venue.board
        for topic in self._topics.values():
            if not topic.is_recorded:
                self._watch(topic)
                topic.packet = self._packet(topic)
                offer((topic, topic.packet))

    # --- the subscribers' side ------------------------------------------------------------------

    async def serve(self, websocket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        connection = MarketFeedConnection(websocket, transport, self._pause_switch, self._truncated)
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
        }[self.settings.auth_answer]
        for code in codes:
            await connection.send(packets.auth_answer(code, self._exchanges))
        return True

    def _login_of(self, text: str) -> Login | str:
        """Return the login of an authentication frame, or what is wrong with it."""
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
                topic = connection.topics.get((stream_of, key_of(what)))
                if topic is not None:
                    self._detach(connection, topic)
            return None
        pairs = {(stream_of, key_of(what)) for stream_of, what, _ in wanted.values()}
        if action == "subscribe" and len(connection.topics.keys() | pairs) > BUDGET:
            return await self._refuse(
                connection,
                _OVER_BUDGET,
                f"{len(connection.topics)} instruments are subscribed and {len(pairs)} requested: "
                f"a connection may have {BUDGET}",
            )
        await connection.send(packets.acknowledgement(action, self._packets.served(wanted)))
        topics = []
        for count, (stream_of, what, _) in enumerate(wanted.values(), 1):
            if action == "subscribe":
                topic = self._attach(connection, stream_of, what)
            else:
                topic = Topic(key_of(what), stream_of, what)
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
        await connection.send(packets.refusal(code, text))

    def _find(self, stream: Stream, tokens: str) -> dict[str, tuple[Stream, Subject, str]]:
        """Return the subjects of a request's tokens, with their symbols, without unknown ones.

        An index comes as index packets however it was requested.
        """
        found: dict[str, tuple[Stream, Subject, str]] = {}
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

    def _attach(self, connection: MarketFeedConnection, stream: Stream, what: Subject) -> Topic:
        key = (stream, key_of(what))
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic(key[1], stream, what)
            self._watch(topic)
            for listing in self._listings(topic):
                self._by_listing.setdefault((listing.segment, listing.token), {})[topic] = None
        topic.connections[connection] = None
        connection.topics[key] = topic
        return topic

    def _detach(self, connection: MarketFeedConnection, topic: Topic) -> None:
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

    def _watch(self, topic: Topic) -> None:
        for listing in self._listings(topic):
            self._market.watch(listing)

    def _listings(self, topic: Topic) -> list[Listing]:
        """Return the listings whose trades show in the topic's packets."""
        if topic.index is not None:
            return self._board.members(topic.index)
        return [topic.listing] if topic.listing is not None else []

    def _authenticated(self) -> list[MarketFeedConnection]:
        return [connection for connection in self.connections if connection.login is not None]

    # --- faults ---------------------------------------------------------------------------------

    def _status_packet(self, segment: Segment) -> bytes:
        is_old = self.settings.old_status
        return packets.status_packet(self._encoder, segment, self._statuses[segment], is_old=is_old)

    def send_garbage(self) -> None:
        """Send bytes that are no packet and text that is no frame to every client."""
        for connection in self._authenticated():
            connection.enqueue(self._random.randbytes(self._random.randint(1, 400)))
            connection.enqueue("\x00{message_code:" + self._random.randbytes(8).hex())

    def truncate(self, count: int) -> None:
        """Cut each of the next `count` batches somewhere."""
        self._cuts += count

    def _truncated(self, batch: bytes) -> bytes:
        if not self._cuts:
            return batch
        self._cuts -= 1
        return batch[: self._random.randrange(1, len(batch))]

    # --- packets --------------------------------------------------------------------------------

    def _packet(self, topic: Topic) -> bytes:
        if topic.index is not None:
            return packets.index_packet(self._encoder, self._board.snapshot(topic.index))
        if topic.listing is None:
            return self._packets.newest(topic.stream, topic.key)
        rows = packets.FULL_ROWS if topic.stream is Stream.FULL_DEPTH else packets.DEPTH_ROWS
        return packets.listing_packet(
            self._encoder, topic, self._market.market_snapshot(topic.listing, rows)
        )
