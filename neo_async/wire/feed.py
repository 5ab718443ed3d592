"""The market feed's `native_batch` protocol, both ways: text frames of the control plane and binary
packets of the data plane.

A binary message holds packets end to end, little-endian and packed, each of which begins with its
own length. A cut tail or an invalid length ends the message without an error, as in the broker's
own client. Prices are integers over the divider of their exchange, which the authentication answer
gives.

The file is longer than others because its loops are written out, field by field, for speed.
"""

from __future__ import annotations

import reprlib
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from math import isfinite
from typing import Annotated, Any, Final, TypeVar

import msgspec

from neo_async.errors import BODY_EXCERPT, ProtocolError
from neo_async.model.enums import Level
from neo_async.model.ticks import (
    AuctionTick,
    DepthRow,
    IndexTick,
    LiteTick,
    MarketState,
    MarketStatus,
    ScripTick,
    Tick,
)
from neo_async.wire.lenient import UNREADABLE, read_json

T = TypeVar("T")

EXCHANGE_IDS: Final[Mapping[str, int]] = {
    "none": 0,
    "nse_cm": 1,
    "nse_fo": 2,
    "cde_fo": 3,
    "nse_com": 4,
    "bse_cm": 5,
    "bse_fo": 6,
    "bse_cd": 7,
    "bse_co": 8,
    "mcx_fo": 9,
    "ncd_co": 10,
}
DIVIDERS: Final[Mapping[str, int]] = {
    "nse_cm": 100,
    "nse_fo": 100,
    "cde_fo": 10_000_000,
    "nse_com": 10_000,
    "bse_cm": 100,
    "bse_fo": 100,
    "bse_cd": 10_000_000,
    "bse_co": 10_000,
    "mcx_fo": 100,
    "ncd_co": 1,
}
"""Default price dividers by exchange; those of the authentication answer take precedence."""

DEFAULT_DIVIDER = 100

AUTH_OK = 1117
AUTH_CONNECTED = 1119
"""Code with the same body as 1117; production has been seen to answer with nothing else."""
AUTH_FAILED = 1120
ACKNOWLEDGED = 1109

MARKET_OPENED = 6511
MARKET_CLOSED = 6521
INDEX = 7207
PICTURE = 7208
STATUS = 105
AUCTION = 104

# length u16, code u16, exchange i8, level u8, auction flag u8, sequence u8, bitmask length u8
HEADER = struct.Struct("<HHbBBBB")
# token u32, last trade time i64, last price u32, last quantity i64, close u32, change % i32,
# change i32, lot u32, precision u8, multiplier u32
LITE = struct.Struct("<HHbBBBB IqIqIiiIBI")
# token, total buy, total sell, volume, last trade time, last update time, open, close, high, low,
# last price, last quantity, average, indicative close, bids, asks, trading status, change %,
# open interest, value f64, change, circuits, year's range, lot, precision, multiplier
SCRIP = struct.Struct("<HHbBBBB IqqqqqIIIIIqIIIIhiIdiIIIIIBI")
ROW = struct.Struct("<qii")
_FIVE_ROWS = struct.Struct("<qiiqiiqiiqiiqii")
# The same packet without those fields of its header that the level implies.
_LITE_BODY = struct.Struct("<4xb4xIqIqIiiIBI")
# token, open, close, high, low, value, time u64, year's range, change %, market cap f64,
# precision u8, multiplier, name
INDEX_PACKET = struct.Struct("<HHbBBBB IiiiiiQiiidBi21s")
STATUS_PACKET = struct.Struct("<HHbBBBB H5s")
AUCTION_PACKET = struct.Struct("<HHbBBBB IIqq")

_LENGTH = struct.Struct("<H")
_NAME_BYTES: Final = 21
"""Size of the name in an index packet; longer names are cut off."""
_MAX_SYMBOL: Final = 100
"""Longest trading symbol, in characters; a longer text is not one."""
_MAX_TOKEN: Final = 0xFFFF_FFFF
_DEPTH_SIZE = SCRIP.size + 2 * _FIVE_ROWS.size
_SCRIP = int(Level.SCRIP)
_PICTURE_LEVELS = frozenset({2, _SCRIP, int(Level.DEPTH), int(Level.FULL_DEPTH)})


class Stream(Enum):
    """A kind of subscription; the value is the tail of its event names."""

    LITE = "ScripsLite"
    SCRIP = "Scrips"
    DEPTH = "Depth"
    FULL_DEPTH = "FullDepth"
    INDEX = "Indices"
    EXCHANGE = "Exchange"
    """Market status of every segment; takes no instruments."""


STREAM_OF_LEVEL: Final[Mapping[Level, Stream]] = {
    Level.LITE: Stream.LITE,
    Level.SCRIP: Stream.SCRIP,
    Level.DEPTH: Stream.DEPTH,
    Level.FULL_DEPTH: Stream.FULL_DEPTH,
}
LEVEL_OF_STREAM: Final[Mapping[Stream, Level]] = {
    stream: level for level, stream in STREAM_OF_LEVEL.items()
}


# --- control plane ----------------------------------------------------------------------------


class AuthFrame(msgspec.Struct, kw_only=True):
    """The first frame of a connection. Field names are the wire's own."""

    user: str
    """Client code."""
    auth: str
    """The sid of the login, not its token."""
    conn_req_time: int
    """Unix milliseconds."""
    sdk_date: str
    """The same time, ISO 8601 in UTC."""
    format: str = "native_batch"
    source: str = "NEOTRADEAPI"
    platform: str = "Web"
    version: str = "1.2.3"
    sdk_version: float = 2
    sessionValidation: bool = False  # noqa: N815


class _Exchange(msgspec.Struct):
    divider: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = DEFAULT_DIVIDER
    """Price divider; 0 counts as not given."""
    value: int | None = None


class _AckEntry(msgspec.Struct):
    trading_symbols: str = ""
    cas_status: int = 0


class Control(msgspec.Struct):
    """A text frame of the server."""

    message_code: int = 0
    message: str = ""
    error_code: int = 0
    description: str = ""
    format: str = "native_batch"
    exchanges: dict[str, _Exchange] = {}
    trading_symbols: dict[str, str] = {}
    data: dict[str, _AckEntry] | None = None

    @property
    def symbols(self) -> dict[str, str]:
        """Trading symbols by subscribed text, from whichever field has them."""
        found = {key: entry.trading_symbols for key, entry in (self.data or {}).items()}
        return {**found, **self.trading_symbols}

    @property
    def text(self) -> str:
        """The text of the frame for errors and `refusals`, cut off when it is long."""
        words = self.message or self.description or f"message code {self.message_code}"
        return words[:BODY_EXCERPT]


_control = msgspec.json.Decoder(Control, strict=False)
_json = msgspec.json.Encoder()


def auth_frame(user: str, sid: str, *, now_ms: int, now_iso: str) -> str:
    return _json.encode(
        AuthFrame(user=user, auth=sid, conn_req_time=now_ms, sdk_date=now_iso)
    ).decode()


def subscription_frame(action: str, stream: Stream, instruments: Iterable[str] = ()) -> str:
    """Return a frame with the action `subscribe`, `unsubscribe` or `snapshot`, for any number of
    instruments."""
    frame: dict[str, object] = {"event": f"{action}{stream.value}"}
    if stream is not Stream.EXCHANGE:
        frame["inputtoken"] = ",".join(instruments)
        if action != "unsubscribe":
            frame["ack_symbol"] = True
    return _json.encode(frame).decode()


def acknowledgement_frame(symbols: Mapping[str, str]) -> str:
    """Return a server's acknowledgement with trading symbols by subscribed text."""
    return _json.encode(
        {"message_code": ACKNOWLEDGED, "message": "Subscribed", "trading_symbols": symbols}
    ).decode()


def read_control(text: str | bytes) -> Control:
    """Decode a text frame. Raises ProtocolError when it is not a JSON object of known shape, or has
    an invalid divider: every price would be wrong. Unreadable names are left out."""
    try:
        try:
            return _control.decode(text)
        except UNREADABLE:
            return _read_odd_control(read_json(text))
    except UNREADABLE as error:
        body = text if isinstance(text, str) else text.decode("utf-8", "replace")
        raise ProtocolError(f"feed control frame: {error}", body=body[:BODY_EXCERPT]) from error


def _read_odd_control(content: Any) -> Control:
    if not isinstance(content, dict):
        raise ValueError(f"{reprlib.repr(content)} is no object")
    control = Control(
        message_code=msgspec.convert(content.get("message_code") or 0, int, strict=False),
        exchanges=msgspec.convert(
            content.get("exchanges") or {}, dict[str, _Exchange], strict=False
        ),
    )
    for name, type_ in (
        ("message", str),
        ("error_code", int),
        ("description", str),
        ("format", str),
    ):
        try:
            setattr(control, name, msgspec.convert(content[name], type_, strict=False))
        except (KeyError, *UNREADABLE):
            continue
    control.trading_symbols = _readable(content.get("trading_symbols"), str)
    control.data = _readable(content.get("data"), _AckEntry)
    return control


def _readable(entries: object, type_: type[T]) -> dict[str, T]:
    """Return the entries of an object that have a type."""
    found = {}
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        try:
            found[name] = msgspec.convert(entry, type_, strict=False)
        except UNREADABLE:
            continue
    return found


# --- data plane -------------------------------------------------------------------------------


class _Listed(msgspec.Struct, gc=False):
    """The subscribed instrument of a packet, by its exchange and token."""

    instrument: str
    symbol: str
    divider: int


class FeedDecoder:
    """Decodes the messages of one connection, with its dividers and the trading symbols it has
    sent.

    With `only_asked` it drops packets and trading symbols of instruments that `ask` has not named,
    and counts them in `unasked`: its memory does not grow with what a server sends.
    """

    def __init__(self, *, only_asked: bool = False) -> None:
        self._segments = {number: name for name, number in EXCHANGE_IDS.items()}
        self._dividers = {EXCHANGE_IDS[name]: divider for name, divider in DIVIDERS.items()}
        self._symbols: dict[str, str] = {}
        # By exchange, then token: making and hashing a pair as the key costs a fifth of a tick.
        self._listed: defaultdict[int, dict[int, _Listed]] = defaultdict(dict)
        self._asked: dict[str, str] | None = {} if only_asked else None
        """The subscribed text by each form in which packets and answers may name the instrument."""
        self.changes = 0
        """Number of times the subscribed instruments or the exchange numbers may have changed."""
        self.stray_bytes = 0
        """Number of bytes at the end of messages that were not a whole packet."""
        self.unasked = 0
        """Number of packets and trading symbols that were dropped because they were not
        subscribed."""

    def ask(self, instruments: Iterable[str]) -> None:
        """Decode the packets of these instruments from now on."""
        if self._asked is not None:
            for instrument in instruments:
                self._asked[instrument] = instrument
                self._asked.setdefault(_in_packets(instrument), instrument)
        self._forget_listed()

    def subscribed_as(self, name: str) -> str:
        """Return the text under which an instrument was asked for that an answer names; the name
        itself where none was."""
        return name if self._asked is None else self._asked.get(name, name)

    def forget(self, instruments: Iterable[str]) -> None:
        """Drop the packets of these instruments from now on, and their trading symbols."""
        for instrument in instruments:
            self._symbols.pop(instrument, None)
            if self._asked is not None and self._asked.get(instrument) == instrument:
                del self._asked[instrument]
                form = _in_packets(instrument)
                if self._asked.get(form) == instrument:
                    del self._asked[form]
                    # Another text may name the same index.
                    for other in [*self._asked.values()]:
                        self._asked.setdefault(_in_packets(other), other)
        self._forget_listed()

    def asked_keys(self) -> list[int]:
        """Return a key for each instrument subscribed by token: the exchange number as an unsigned
        byte, and below it the 32 bits of the token."""
        numbers: defaultdict[str, list[int]] = defaultdict(list)
        for number, segment in self._segments.items():
            numbers[segment].append(number)
        keys: set[int] = set()
        for form in self._asked or ():
            segment, _, token = form.partition("|")
            if (value := _token(token)) is not None:
                keys.update((number & 0xFF) << 32 | value for number in numbers.get(segment, ()))
        return sorted(keys)

    def _forget_listed(self) -> None:
        self.changes += 1
        self._listed.clear()

    def set_exchanges(self, control: Control) -> None:
        """Set dividers (and numbers, where given) from an authentication answer; an exchange that
        it does not name has the default divider. Numbers that do not fit into a packet are
        ignored."""
        if control.exchanges:
            self._dividers.clear()
        for name, exchange in control.exchanges.items():
            number = EXCHANGE_IDS.get(name) if exchange.value is None else exchange.value
            if number is not None and -128 <= number < 128:
                self._segments[number] = name
                self._dividers[number] = exchange.divider or DEFAULT_DIVIDER
        self._forget_listed()

    @property
    def dividers(self) -> Mapping[int, int]:
        """Dividers by exchange number."""
        return self._dividers

    def set_symbols(self, symbols: Mapping[str, str]) -> dict[str, str]:
        """Set trading symbols by subscribed text, from an acknowledgement or a subscription (then
        with an empty symbol); return those that were set."""
        taken = {
            instrument: symbol
            for instrument, symbol in symbols.items()
            if (self._asked is None or instrument in self._asked) and len(symbol) <= _MAX_SYMBOL
        }
        self.unasked += len(symbols) - len(taken)
        for instrument, symbol in taken.items():
            if symbol or instrument not in self._symbols:
                self._symbols[instrument] = symbol
        self._forget_listed()
        return taken

    def decode(self, message: bytes, received_ns: int) -> list[Tick]:
        """Return every tick of one binary message, in its order."""
        ticks: list[Tick] = []
        end = len(message)
        at = 0
        # A frame of nothing but mini touch lines is the commonest of busy feeds.
        if end >= LITE.size and end % LITE.size == 0 and self._all_lite(message):
            self._decode_lite(message, received_ns, ticks)
            return ticks
        while at + HEADER.size <= end:
            size, code, exchange, level, auction, _, _ = HEADER.unpack_from(message, at)
            if size < HEADER.size or at + size > end:
                break
            tick = self._packet(message, at, size, code, exchange, level, auction, received_ns)
            if tick is not None:
                ticks.append(tick)
            at += size
        self.stray_bytes += end - at
        return ticks

    def _all_lite(self, message: bytes) -> bool:
        """Return whether every packet is a mini touch line, by the bytes that those have in
        common."""
        step = LITE.size
        return (
            message[0::step] == b"\x36" * (len(message) // step)
            and not any(message[1::step])
            and message[5::step] == b"\x01" * (len(message) // step)
            and message[2::step] == b"\x28" * (len(message) // step)
            and message[3::step] == b"\x1c" * (len(message) // step)
        )

    def _decode_lite(
        self, message: bytes | memoryview, received_ns: int, ticks: list[Tick]
    ) -> None:
        listed_of = self._listed
        append = ticks.append
        for (
            exchange,
            token,
            last_trade_time,
            last_price,
            last_quantity,
            close,
            change_percent,
            change,
            lot_size,
            precision,
            multiplier,
        ) in _LITE_BODY.iter_unpack(message):
            listed = listed_of[exchange].get(token) or self._list(exchange, token)
            if listed is None:
                continue
            divider = listed.divider
            append(
                LiteTick(
                    listed.instrument,
                    listed.symbol,
                    last_price / divider,
                    last_trade_time,
                    last_quantity,
                    close / divider,
                    change / divider,
                    change_percent / 100,
                    lot_size,
                    precision,
                    multiplier,
                    received_ns,
                )
            )

    def _packet(
        self,
        message: bytes,
        at: int,
        size: int,
        code: int,
        exchange: int,
        level: int,
        auction: int,
        received_ns: int,
    ) -> Tick | None:
        """Decode one packet; None when its kind is not known, or it is too short for its kind, or
        empty."""
        if code == PICTURE and level in _PICTURE_LEVELS:
            return self._scrip(message, at, size, auction, received_ns)
        if code in (MARKET_OPENED, MARKET_CLOSED):
            state = MarketState.OPEN if code == MARKET_OPENED else MarketState.CLOSED
            return MarketStatus(self._segment(exchange), state, "", received_ns)
        if code == INDEX:
            return self._index(message, at, size, received_ns)
        if code == STATUS:
            return self._status(message, at, size, received_ns)
        if code == AUCTION:
            return self._auction(message, at, size, received_ns)
        if level == Level.LITE:
            if size < LITE.size:
                return None
            one: list[Tick] = []
            self._decode_lite(memoryview(message)[at : at + LITE.size], received_ns, one)
            return one[0] if one else None
        if level in _PICTURE_LEVELS:
            return self._scrip(message, at, size, auction, received_ns)
        return None

    def _scrip(
        self, message: bytes, at: int, size: int, auction: int, received_ns: int
    ) -> ScripTick | None:
        if size < SCRIP.size:
            return None
        (
            _,
            _,
            exchange,
            level,
            _,
            _,
            _,
            token,
            total_buy,
            total_sell,
            volume,
            last_trade_time,
            last_update_time,
            open_,
            close,
            high,
            low,
            last_price,
            last_quantity,
            average,
            _,
            bid_count,
            ask_count,
            _,
            change_percent,
            open_interest,
            value,
            change,
            upper_circuit,
            lower_circuit,
            year_high,
            year_low,
            lot_size,
            precision,
            multiplier,
        ) = SCRIP.unpack_from(message, at)
        listed = self._listed[exchange].get(token) or self._list(exchange, token)
        if listed is None:
            return None
        divider = listed.divider
        if level == _SCRIP:  # one bid and one ask, whatever the counts are
            bid_count = ask_count = 1
        bids: tuple[DepthRow, ...]
        asks: tuple[DepthRow, ...]
        start = at + SCRIP.size
        if size == _DEPTH_SIZE and bid_count == ask_count == 5:
            bids = _five_rows(message, start, divider)
            asks = _five_rows(message, start + _FIVE_ROWS.size, divider)
        else:
            whole = (size - SCRIP.size) // ROW.size * ROW.size
            rows = tuple(
                DepthRow(quantity, price / divider, orders)
                for quantity, price, orders in ROW.iter_unpack(message[start : start + whole])
            )
            bids = rows[:bid_count]
            asks = rows[bid_count : bid_count + ask_count]
        return ScripTick(
            listed.instrument,
            listed.symbol,
            level,
            last_price / divider,
            last_trade_time,
            last_update_time if last_update_time > 0 else 0,  # negative means never
            last_quantity,
            open_ / divider,
            high / divider,
            low / divider,
            close / divider,
            average / divider,
            volume,
            value / divider if isfinite(value) else 0.0,
            total_buy,
            total_sell,
            open_interest,
            change / divider,
            change_percent / 100,
            upper_circuit / divider,
            lower_circuit / divider,
            year_high / divider,
            year_low / divider,
            lot_size,
            precision,
            multiplier,
            auction > 0,
            bids,
            asks,
            received_ns,
        )

    def _index(self, message: bytes, at: int, size: int, received_ns: int) -> IndexTick | None:
        if size < INDEX_PACKET.size:
            return None
        (
            _,
            _,
            exchange,
            _,
            _,
            _,
            _,
            token,
            open_,
            close,
            high,
            low,
            value,
            last_trade_time,
            year_high,
            year_low,
            change_percent,
            _,
            precision,
            multiplier,
            raw_name,
        ) = INDEX_PACKET.unpack_from(message, at)
        name = _text(raw_name)
        listed = self._listed[exchange].get(token) or self._list(exchange, token, name)
        if listed is None:
            return None
        divider = listed.divider
        return IndexTick(
            listed.instrument,
            listed.symbol,
            name,
            token,
            value / divider,
            last_trade_time,
            open_ / divider,
            high / divider,
            low / divider,
            close / divider,
            (value - close) / divider,
            change_percent / 100,
            year_high / divider,
            year_low / divider,
            precision,
            multiplier / divider,
            received_ns,
        )

    def _status(self, message: bytes, at: int, size: int, received_ns: int) -> MarketStatus | None:
        if size < STATUS_PACKET.size:
            return None
        *header, code, text = STATUS_PACKET.unpack_from(message, at)
        return MarketStatus(self._segment(header[2]), code, _text(text), received_ns)

    def _auction(self, message: bytes, at: int, size: int, received_ns: int) -> AuctionTick | None:
        if size < AUCTION_PACKET.size:
            return None
        *header, token, price, quantity, at_market = AUCTION_PACKET.unpack_from(message, at)
        if not (price or quantity or at_market):  # sent all day, empty outside the auction
            return None
        exchange = header[2]
        listed = self._listed[exchange].get(token) or self._list(exchange, token)
        if listed is None:
            return None
        return AuctionTick(
            listed.instrument,
            listed.symbol,
            price / listed.divider,
            quantity,
            at_market,
            received_ns,
        )

    def _segment(self, exchange: int) -> str:
        return self._segments.get(exchange, str(exchange))

    def _list(self, exchange: int, token: int, name: str = "") -> _Listed | None:
        """Look up the instrument of a packet, once until names or dividers change; None when it is
        not subscribed.

        An index may be subscribed by number or by name, while its packets have both.
        """
        segment = self._segment(exchange)
        instrument = f"{segment}|{token}"
        known = self._symbols if self._asked is None else self._asked
        if name and instrument not in known:
            by_name = f"{segment}|{name}"
            if by_name in known:
                instrument = by_name
            elif self._asked is not None:
                instrument = self._asked.get(f"{segment}|{name.casefold()}", instrument)
        if self._asked is not None and instrument not in self._asked:
            self.unasked += 1
            return None
        divider = self._dividers.get(exchange) or DEFAULT_DIVIDER
        listed = _Listed(instrument, self._symbols.get(instrument, ""), divider)
        # Any number of tokens may come under the name of one index.
        if self._asked is None or len(self._listed[exchange]) < len(self._asked):
            self._listed[exchange][token] = listed
        return listed


def _in_packets(instrument: str) -> str:
    """Return a subscribed index in the form of packet names, which may have other capitals and are
    cut off; an instrument with a number as it is."""
    segment, _, name = instrument.partition("|")
    if name.isdecimal():
        return instrument
    return f"{segment}|{_text(name.encode('utf-8', 'replace')[:_NAME_BYTES]).casefold()}"


def _token(text: str) -> int | None:
    """Return the token of an instrument; None when it does not fit into a packet."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        return None
    value = int(text)
    return value if value <= _MAX_TOKEN else None


def _five_rows(message: bytes, at: int, divider: int) -> tuple[DepthRow, ...]:
    """Decode one side of a depth packet. Unrolled: that takes half the time of a loop, on the
    largest packet."""
    q1, p1, n1, q2, p2, n2, q3, p3, n3, q4, p4, n4, q5, p5, n5 = _FIVE_ROWS.unpack_from(message, at)
    return (
        DepthRow(q1, p1 / divider, n1),
        DepthRow(q2, p2 / divider, n2),
        DepthRow(q3, p3 / divider, n3),
        DepthRow(q4, p4 / divider, n4),
        DepthRow(q5, p5 / divider, n5),
    )


def split(message: bytes) -> Iterator[bytes]:
    """Yield the packets of a binary message, up to the first that is cut off or has an invalid
    length."""
    at = 0
    while at + HEADER.size <= len(message):
        (size,) = _LENGTH.unpack_from(message, at)
        if size < HEADER.size or at + size > len(message):
            return
        yield message[at : at + size]
        at += size


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace").strip()


# --- the exchange's side ----------------------------------------------------------------------


class FeedEncoder:
    """Writes packets as the broker does: the inverse of FeedDecoder."""

    def __init__(self, dividers: Mapping[str, int] = DIVIDERS) -> None:
        self._dividers = dividers
        self._sequence = 0

    def lite(self, tick: LiteTick) -> bytes:
        exchange, token, divider = self._address(tick.instrument)
        return LITE.pack(
            LITE.size,
            PICTURE,
            exchange,
            Level.LITE,
            0,
            self._next(),
            0,
            token,
            tick.last_trade_time,
            round(tick.last_price * divider),
            tick.last_quantity,
            round(tick.close * divider),
            round(tick.change_percent * 100),
            round(tick.change * divider),
            tick.lot_size,
            tick.precision,
            tick.multiplier,
        )

    def scrip(self, tick: ScripTick) -> bytes:
        exchange, token, divider = self._address(tick.instrument)
        rows = [*tick.bids, *tick.asks]
        size = SCRIP.size + len(rows) * ROW.size
        fixed = SCRIP.pack(
            size,
            PICTURE,
            exchange,
            tick.level,
            int(tick.is_auction),
            self._next(),
            0,
            token,
            tick.total_buy_quantity,
            tick.total_sell_quantity,
            tick.volume,
            tick.last_trade_time,
            tick.last_update_time,
            round(tick.open * divider),
            round(tick.close * divider),
            round(tick.high * divider),
            round(tick.low * divider),
            round(tick.last_price * divider),
            tick.last_quantity,
            round(tick.average_price * divider),
            0,
            len(tick.bids),
            len(tick.asks),
            0,
            round(tick.change_percent * 100),
            tick.open_interest,
            tick.value * divider,
            round(tick.change * divider),
            round(tick.upper_circuit * divider),
            round(tick.lower_circuit * divider),
            round(tick.year_high * divider),
            round(tick.year_low * divider),
            tick.lot_size,
            tick.precision,
            tick.multiplier,
        )
        return fixed + b"".join(
            ROW.pack(row.quantity, round(row.price * divider), row.orders) for row in rows
        )

    def index(self, segment: str, tick: IndexTick) -> bytes:
        divider = self._dividers.get(segment, DEFAULT_DIVIDER)
        return INDEX_PACKET.pack(
            INDEX_PACKET.size,
            INDEX,
            EXCHANGE_IDS[segment],
            Level.LITE,
            0,
            self._next(),
            0,
            tick.token,
            round(tick.open * divider),
            round(tick.close * divider),
            round(tick.high * divider),
            round(tick.low * divider),
            round(tick.last_price * divider),
            tick.last_trade_time,
            round(tick.year_high * divider),
            round(tick.year_low * divider),
            round(tick.change_percent * 100),
            0.0,
            tick.precision,
            round(tick.multiplier * divider),
            tick.name.encode()[:21],
        )

    def status(self, status: MarketStatus) -> bytes:
        return STATUS_PACKET.pack(
            STATUS_PACKET.size,
            STATUS,
            EXCHANGE_IDS[status.segment],
            0,
            0,
            self._next(),
            0,
            status.code,
            status.text.encode()[:5],
        )

    def auction(self, tick: AuctionTick, level: Level = Level.SCRIP) -> bytes:
        exchange, token, divider = self._address(tick.instrument)
        return AUCTION_PACKET.pack(
            AUCTION_PACKET.size,
            AUCTION,
            exchange,
            level,
            0,
            self._next(),
            0,
            token,
            round(tick.reference_price * divider),
            tick.imbalance_quantity,
            tick.imbalance_at_market,
        )

    def _address(self, instrument: str) -> tuple[int, int, int]:
        segment, _, token = instrument.partition("|")
        return EXCHANGE_IDS[segment], int(token), self._dividers.get(segment, DEFAULT_DIVIDER)

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0xFF
        return self._sequence


def batches(packets: Sequence[bytes], limit: int = 512 * 1024) -> Iterator[bytes]:
    """Join packets into as few messages of at most `limit` bytes as possible."""
    message = bytearray()
    for packet in packets:
        if message and len(message) + len(packet) > limit:
            yield bytes(message)
            message.clear()
        message += packet
    if message:
        yield bytes(message)
