from __future__ import annotations

import itertools
import json
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import ProtocolError
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
from neo_async.wire.feed import (
    DIVIDERS,
    EXCHANGE_IDS,
    LITE,
    PICTURE,
    ROW,
    SCRIP,
    AuthFrame,
    FeedDecoder,
    FeedEncoder,
    Stream,
    auth_frame,
    batches,
    read_control,
    subscription_frame,
)

NOW = 1_795_408_200_000_000_000

# --- the broker's example, and others that the official SDK reads as stated -----------------------

MINI_BYTES = bytes.fromhex(
    "36 00 28 1c 01 01 00 07 00 10 2d 00 00 80 26 b4 68 00 00 00 00 40 e2 01 00 32 00 00 00 00 00"
    "00 00 90 dc 01 00 77 00 00 00 b0 05 00 00 01 00 00 00 02 01 00 00 00"
)
MINI = LiteTick("nse_cm|11536", "", 1234.56, 1_756_636_800, 50, 1220.00, 14.56, 1.19, 1, 2, 1, NOW)

INDEX_BYTES = bytes.fromhex(
    "57 00 27 1c 01 00 00 01 00 90 65 00 00 80 84 1e 00 70 5d 1e 00 90 ab 1e 00 60 36 1e 00 08 98"
    "1e 00 d2 02 96 49 00 00 00 00 20 0b 20 00 60 e3 16 00 4b 00 00 00 00 00 00 00 00 00 00 00 02"
    "64 00 00 00 4e 69 66 74 79 20 35 30 00 00 00 00 00 00 00 00 00 00 00 00 00"
)
INDEX = IndexTick(
    instrument="nse_cm|26000",
    symbol="",
    name="Nifty 50",
    token=26000,
    last_price=20050.0,
    last_trade_time=1_234_567_890,
    open=20000.0,
    high=20100.0,
    low=19800.0,
    close=19900.0,
    change=150.0,
    change_percent=0.75,
    year_high=21000.0,
    year_low=15000.0,
    precision=2,
    multiplier=1.0,
    received_ns=NOW,
)

TOUCH_BYTES = bytes.fromhex(
    "b0 00 28 1c 01 04 00 02 00 10 2d 00 00 e8 03 00 00 00 00 00 00 d0 07 00 00 00 00 00 00 50"
    "c3 00 00 00 00 00 00 80 54 a4 68 00 00 00 00 81 54 a4 68 00 00 00 00 f0 49 02 00 08 46 02"
    "00 d8 4d 02 00 20 42 02 00 22 4a 02 00 0a 00 00 00 00 00 00 00 09 4a 02 00 00 00 00 00 05"
    "00 00 00 05 00 00 00 00 00 46 00 00 00 00 00 00 00 00 00 00 e4 ff 5a c6 41 1a 04 00 00 3c"
    "80 02 00 d4 0b 02 00 40 0d 03 00 a0 86 01 00 01 00 00 00 02 01 00 00 00 64 00 00 00 00 00"
    "00 00 22 4a 02 00 03 00 00 00 c8 00 00 00 00 00 00 00 27 4a 02 00 04 00 00 00"
)
TOUCH = ScripTick(
    instrument="nse_cm|11536",
    symbol="",
    level=4,
    last_price=1500.50,
    last_trade_time=1_755_600_000,
    last_update_time=1_755_600_001,
    last_quantity=10,
    open=1500.0,
    high=1510.0,
    low=1480.0,
    close=1490.0,
    average_price=1500.25,
    volume=50_000,
    value=7_501_250.0,
    total_buy_quantity=1000,
    total_sell_quantity=2000,
    open_interest=0,
    change=10.50,
    change_percent=0.70,
    upper_circuit=1639.0,
    lower_circuit=1341.0,
    year_high=2000.0,
    year_low=1000.0,
    lot_size=1,
    precision=2,
    multiplier=1,
    is_auction=False,
    bids=(DepthRow(100, 1500.50, 3),),
    asks=(DepthRow(200, 1500.55, 4),),
    received_ns=NOW,
)

STATUS_BYTES = bytes.fromhex("10 00 69 00 01 00 00 03 00 01 00 4f 50 45 4e 00")
STATUS = MarketStatus("nse_cm", MarketState.OPEN, "OPEN", NOW)

AUCTION_BYTES = bytes.fromhex(
    "21 00 68 00 01 04 00 04 00 10 2d 00 00 54 4a 02 00 c4 09 00 00 00 00 00 00 50 fb ff ff ff ff"
    "ff ff"
)
LONG_AUCTION_BYTES = b"\x30" + AUCTION_BYTES[1:] + bytes(15)
AUCTION = AuctionTick("nse_cm|11536", "", 1501.00, 2500, -1200, NOW)

OPENED_BYTES = bytes.fromhex("09 00 6f 19 01 00 00 05 00")
OPENED = MarketStatus("nse_cm", MarketState.OPEN, "", NOW)
CLOSED_BYTES = bytes.fromhex("09 00 79 19 02 00 00 05 00")
CLOSED = MarketStatus("nse_fo", MarketState.CLOSED, "", NOW)

VECTORS: list[tuple[bytes, Tick]] = [
    (MINI_BYTES, MINI),
    (INDEX_BYTES, INDEX),
    (TOUCH_BYTES, TOUCH),
    (STATUS_BYTES, STATUS),
    (AUCTION_BYTES, AUCTION),
    (LONG_AUCTION_BYTES, AUCTION),
    (OPENED_BYTES, OPENED),
    (CLOSED_BYTES, CLOSED),
]
NAMES = ["mini", "index", "touch", "status", "auction", "long-auction", "opened", "closed"]
BATCH = b"".join(packet for packet, _ in VECTORS)


def decode(message: bytes) -> list[Tick]:
    return FeedDecoder().decode(message, NOW)


@pytest.mark.parametrize(("packet", "tick"), VECTORS, ids=NAMES)
def test_every_known_packet_reads_as_documented(packet: bytes, tick: Tick) -> None:
    assert decode(packet) == [tick]


def test_a_batch_is_its_packets_in_order_and_a_stray_tail_is_counted() -> None:
    decoder = FeedDecoder()
    assert decoder.decode(BATCH + bytes.fromhex("36 00 28"), NOW) == [tick for _, tick in VECTORS]
    assert decoder.stray_bytes == 3


@given(st.lists(st.sampled_from(VECTORS), max_size=12), st.integers(0, 12))
def test_a_batch_reads_the_same_however_its_packets_are_spread(
    vectors: list[tuple[bytes, Tick]], cut: int
) -> None:
    decoder = FeedDecoder()
    parts = [b"".join(packet for packet, _ in part) for part in (vectors[:cut], vectors[cut:])]
    ticks = [tick for part in parts for tick in decoder.decode(part, NOW)]
    assert ticks == [tick for _, tick in vectors] == decode(b"".join(parts))


def test_what_is_whole_of_a_truncated_batch_is_read() -> None:
    ends = list(itertools.accumulate(len(packet) for packet, _ in VECTORS))
    for length in range(len(BATCH)):
        whole = sum(end <= length for end in ends)
        decoder = FeedDecoder()
        assert decoder.decode(BATCH[:length], NOW) == [tick for _, tick in VECTORS[:whole]]
        assert decoder.stray_bytes == length - (ends[whole - 1] if whole else 0)


@pytest.mark.parametrize(("packet", "tick"), VECTORS, ids=NAMES)
def test_a_packet_too_short_for_its_kind_is_passed_over(packet: bytes, tick: Tick) -> None:
    needed = min(len(packet), SCRIP.size) if isinstance(tick, ScripTick) else len(packet)
    if isinstance(tick, AuctionTick):
        needed = 33
    for size in range(9, needed):
        short = struct.pack("<H", size) + packet[2:size]
        assert decode(short + STATUS_BYTES) == [STATUS]


@given(st.binary(max_size=700))
def test_random_bytes_never_raise(message: bytes) -> None:
    ticks = decode(message)
    assert len(ticks) <= len(message) // 9


@given(st.binary(min_size=0, max_size=400), st.sampled_from([104, 105, 6511, 7207, 7208]))
def test_random_bodies_never_raise(body: bytes, code: int) -> None:
    for level in (0, 1, 2, 4, 8, 16):
        header = struct.pack("<HHbBBBB", 9 + len(body), code, 1, level, 0, 0, 0)
        assert len(decode(header + body)) <= 1


@pytest.mark.parametrize("size", range(9))
def test_a_nonsense_length_ends_the_message(size: int) -> None:
    decoder = FeedDecoder()
    message = MINI_BYTES + struct.pack("<H", size) + MINI_BYTES[2:]
    assert decoder.decode(message, NOW) == [MINI]
    assert decoder.stray_bytes == len(MINI_BYTES)


@given(st.lists(st.tuples(st.integers(0, 0xFFFFFFFF), st.integers(0, 255)), min_size=1))
def test_many_mini_touch_lines_read_as_each_of_them_alone(keys: list[tuple[int, int]]) -> None:
    packets = [
        MINI_BYTES[:7] + bytes([sequence]) + b"\0" + struct.pack("<I", token) + MINI_BYTES[13:]
        for token, sequence in keys
    ]
    assert decode(b"".join(packets)) == [tick for packet in packets for tick in decode(packet)]


def test_another_kind_among_mini_touch_lines_is_seen() -> None:
    six = b"".join([OPENED_BYTES] * 6)  # as long as one mini touch line
    assert decode(MINI_BYTES + six + MINI_BYTES) == [MINI, *[OPENED] * 6, MINI]


# --- there and back -------------------------------------------------------------------------------

SEGMENTS = st.sampled_from([name for name in EXCHANGE_IDS if name != "none"])
U32 = st.integers(0, (1 << 32) - 1)
I32 = st.integers(-(1 << 31), (1 << 31) - 1)
BIG = st.integers(0, 1 << 50)
SMALL = st.integers(0, 255)


@st.composite
def lite_ticks(draw: st.DrawFn) -> LiteTick:
    segment = draw(SEGMENTS)
    divider = DIVIDERS[segment]
    return LiteTick(
        f"{segment}|{draw(U32)}",
        "",
        draw(U32) / divider,
        draw(BIG),
        draw(BIG),
        draw(U32) / divider,
        draw(I32) / divider,
        draw(I32) / 100,
        draw(U32),
        draw(SMALL),
        draw(U32),
        NOW,
    )


@st.composite
def scrip_ticks(draw: st.DrawFn) -> ScripTick:
    segment = draw(SEGMENTS)
    divider = DIVIDERS[segment]
    level = draw(st.sampled_from([Level.SCRIP, Level.DEPTH, Level.FULL_DEPTH]))
    counts = {
        Level.SCRIP: st.just(1),
        Level.DEPTH: st.just(5) | st.integers(0, 5),
        Level.FULL_DEPTH: st.integers(0, 20),
    }[level]

    def rows() -> tuple[DepthRow, ...]:
        count = draw(counts)
        return tuple(DepthRow(draw(BIG), draw(I32) / divider, draw(I32)) for _ in range(count))

    def price() -> float:
        return draw(U32) / divider

    return ScripTick(
        instrument=f"{segment}|{draw(U32)}",
        symbol="",
        level=level,
        last_price=price(),
        last_trade_time=draw(BIG),
        last_update_time=draw(BIG),
        last_quantity=draw(BIG),
        open=price(),
        high=price(),
        low=price(),
        close=price(),
        average_price=price(),
        volume=draw(BIG),
        value=draw(st.integers(0, 1 << 40)) / divider,
        total_buy_quantity=draw(BIG),
        total_sell_quantity=draw(BIG),
        open_interest=draw(U32),
        change=draw(I32) / divider,
        change_percent=draw(I32) / 100,
        upper_circuit=price(),
        lower_circuit=price(),
        year_high=price(),
        year_low=price(),
        lot_size=draw(U32),
        precision=draw(SMALL),
        multiplier=draw(U32),
        is_auction=draw(st.booleans()),
        bids=rows(),
        asks=rows(),
        received_ns=NOW,
    )


@st.composite
def index_ticks(draw: st.DrawFn) -> tuple[str, IndexTick]:
    segment = draw(SEGMENTS)
    divider = DIVIDERS[segment]
    token = draw(U32)
    value, close = draw(I32), draw(I32)
    return segment, IndexTick(
        instrument=f"{segment}|{token}",
        symbol="",
        name=draw(st.text("abcXYZ 0123456789&", min_size=1, max_size=21)).strip(),
        token=token,
        last_price=value / divider,
        last_trade_time=draw(BIG),
        open=draw(I32) / divider,
        high=draw(I32) / divider,
        low=draw(I32) / divider,
        close=close / divider,
        change=(value - close) / divider,
        change_percent=draw(I32) / 100,
        year_high=draw(I32) / divider,
        year_low=draw(I32) / divider,
        precision=draw(SMALL),
        multiplier=draw(I32) / divider,
        received_ns=NOW,
    )


@given(lite_ticks())
def test_a_mini_touch_line_survives_the_wire(tick: LiteTick) -> None:
    packet = FeedEncoder().lite(tick)
    assert len(packet) == 54
    assert decode(packet) == [tick]


@given(scrip_ticks())
def test_a_market_picture_survives_the_wire(tick: ScripTick) -> None:
    packet = FeedEncoder().scrip(tick)
    assert len(packet) == 144 + 16 * (len(tick.bids) + len(tick.asks))
    (read,) = decode(packet)
    assert isinstance(read, ScripTick)
    # The traded value is a float on the wire, times the divider: it may lose its last bit.
    assert read.value == pytest.approx(tick.value, rel=1e-15)
    assert msgspec.structs.replace(read, value=tick.value) == tick


@given(index_ticks())
def test_an_index_survives_the_wire(segment_and_tick: tuple[str, IndexTick]) -> None:
    segment, tick = segment_and_tick
    packet = FeedEncoder().index(segment, tick)
    assert len(packet) == 87
    assert decode(packet) == [tick]


@given(SEGMENTS, st.integers(0, 0xFFFF), st.text("ABCDE", max_size=5))
def test_a_market_status_survives_the_wire(segment: str, code: int, text: str) -> None:
    status = MarketStatus(segment, code, text, NOW)
    packet = FeedEncoder().status(status)
    assert len(packet) == 16
    assert decode(packet) == [status]


@given(SEGMENTS, U32, U32, BIG, BIG)
def test_an_auction_survives_the_wire_unless_it_says_nothing(
    segment: str, token: int, price: int, imbalance: int, at_market: int
) -> None:
    tick = AuctionTick(
        f"{segment}|{token}", "", price / DIVIDERS[segment], imbalance, -at_market, NOW
    )
    packet = FeedEncoder().auction(tick, Level.DEPTH)
    assert len(packet) == 33
    assert decode(packet) == ([tick] if price or imbalance or at_market else [])


def test_sequence_numbers_count_packets_and_wrap() -> None:
    encoder = FeedEncoder()
    numbers = [encoder.lite(MINI)[7] for _ in range(300)]
    assert numbers == [count % 256 for count in range(1, 301)]


@given(st.lists(st.binary(min_size=9, max_size=60)), st.integers(60, 200))
def test_batches_are_whole_packets_within_the_limit_and_few(
    packets: list[bytes], limit: int
) -> None:
    messages = list(batches(packets, limit))
    assert b"".join(messages) == b"".join(packets)
    assert all(0 < len(message) <= limit for message in messages)
    ends = list(itertools.accumulate(map(len, packets)))
    at = 0
    for message in messages[:-1]:
        at += len(message)
        following = next(end for end in ends if end > at) - at
        assert at in ends
        assert len(message) + following > limit


# --- odd pictures ---------------------------------------------------------------------------------


def test_a_time_before_1970_means_never() -> None:
    packet = bytearray(TOUCH_BYTES)
    struct.pack_into("<q", packet, 45, -2_208_988_800 - 19_800)
    (tick,) = decode(bytes(packet))
    assert isinstance(tick, ScripTick)
    assert tick.last_update_time == 0


def test_rows_that_the_packet_has_no_room_for_are_left_out() -> None:
    rows = [(100 + number, 150_000 + number, number) for number in range(4)]
    body = TOUCH_BYTES[:144] + b"".join(ROW.pack(*row) for row in rows)
    packet = bytearray(body + b"\1\2\3")
    struct.pack_into("<H", packet, 0, len(packet))
    packet[5] = Level.DEPTH
    struct.pack_into("<II", packet, 89, 3, 0xFFFFFFFF)
    (tick,) = decode(bytes(packet))
    assert isinstance(tick, ScripTick)
    assert [row.quantity for row in tick.bids] == [100, 101, 102]
    assert [row.quantity for row in tick.asks] == [103]


def test_an_auction_flag_above_zero_means_an_auction() -> None:
    for flag, expected in ((0, False), (1, True), (200, True)):
        packet = TOUCH_BYTES[:6] + bytes([flag]) + TOUCH_BYTES[7:]
        (tick,) = decode(packet)
        assert isinstance(tick, ScripTick)
        assert tick.is_auction is expected


def test_an_unknown_exchange_is_named_by_its_number_and_counts_in_hundredths() -> None:
    (tick,) = decode(MINI_BYTES[:4] + struct.pack("<b", -3) + MINI_BYTES[5:])
    assert isinstance(tick, LiteTick)
    assert (tick.instrument, tick.last_price) == ("-3|11536", 1234.56)


# --- what a connection learns ---------------------------------------------------------------------


def test_dividers_come_from_the_authentication_answer() -> None:
    decoder = FeedDecoder()
    assert decoder.decode(cde(MINI_BYTES), NOW)[0].last_price == 0.0123456  # type: ignore[union-attr]
    decoder.set_exchanges(
        read_control('{"message_code":1117,"exchanges":{"nse_cm":{"value":1,"divider":1000}}}')
    )
    assert decoder.decode(MINI_BYTES, NOW)[0].last_price == 123.456  # type: ignore[union-attr]
    # An exchange that the answer leaves out has the default, not what is usual for it.
    assert decoder.decode(cde(MINI_BYTES), NOW)[0].last_price == 1234.56  # type: ignore[union-attr]


def test_numbers_of_exchanges_come_by_value_or_by_name() -> None:
    decoder = FeedDecoder()
    decoder.set_exchanges(
        read_control('{"exchanges":{"nse_cm":{"divider":10},"new_one":{"value":42,"divider":0}}}')
    )
    assert decoder.decode(MINI_BYTES, NOW)[0].last_price == 12345.6  # type: ignore[union-attr]
    (tick,) = decoder.decode(MINI_BYTES[:4] + bytes([42]) + MINI_BYTES[5:], NOW)
    assert (tick.instrument, tick.last_price) == ("new_one|11536", 1234.56)  # type: ignore[union-attr]


def test_names_come_from_acknowledgements_even_after_the_first_packets() -> None:
    decoder = FeedDecoder()
    assert decoder.decode(MINI_BYTES, NOW)[0].symbol == ""  # type: ignore[union-attr]
    decoder.set_symbols({"nse_cm|11536": "TCS-EQ"})
    assert decoder.decode(MINI_BYTES, NOW)[0].symbol == "TCS-EQ"  # type: ignore[union-attr]
    decoder.set_symbols({"nse_cm|11536": ""})  # subscribed again: no reason to forget it
    assert decoder.decode(MINI_BYTES, NOW)[0].symbol == "TCS-EQ"  # type: ignore[union-attr]


def test_an_index_is_known_by_the_text_it_was_subscribed_with() -> None:
    for text in ("nse_cm|Nifty 50", "nse_cm|26000"):
        decoder = FeedDecoder()
        decoder.set_symbols({text: "Nifty 50-IN"})
        (tick,) = decoder.decode(INDEX_BYTES, NOW)
        assert isinstance(tick, IndexTick)
        assert (tick.instrument, tick.symbol) == (text, "Nifty 50-IN")


def cde(packet: bytes) -> bytes:
    return packet[:4] + bytes([EXCHANGE_IDS["cde_fo"]]) + packet[5:]


# --- control frames -------------------------------------------------------------------------------


def test_the_authentication_frame_has_the_keys_of_the_official_sdk() -> None:
    frame = json.loads(auth_frame("ABC87", "daca59eb", now_ms=1786095677667, now_iso="2026-08-07"))
    assert frame == {
        "user": "ABC87",
        "auth": "daca59eb",
        "format": "native_batch",
        "source": "NEOTRADEAPI",
        "platform": "Web",
        "version": "1.2.3",
        "sdk_version": 2,
        "sdk_date": "2026-08-07",
        "conn_req_time": 1786095677667,
        "sessionValidation": False,
    }
    assert set(frame) == set(AuthFrame.__struct_fields__)


@pytest.mark.parametrize(
    ("action", "stream", "frame"),
    [
        (
            "subscribe",
            Stream.SCRIP,
            {"event": "subscribeScrips", "inputtoken": "a|1,b|2", "ack_symbol": True},
        ),
        ("unsubscribe", Stream.LITE, {"event": "unsubscribeScripsLite", "inputtoken": "a|1,b|2"}),
        (
            "snapshot",
            Stream.INDEX,
            {"event": "snapshotIndices", "inputtoken": "a|1,b|2", "ack_symbol": True},
        ),
        ("subscribe", Stream.EXCHANGE, {"event": "subscribeExchange"}),
        ("unsubscribe", Stream.EXCHANGE, {"event": "unsubscribeExchange"}),
    ],
)
def test_subscription_frames(action: str, stream: Stream, frame: dict[str, object]) -> None:
    assert json.loads(subscription_frame(action, stream, ["a|1", "b|2"])) == frame


@pytest.mark.parametrize(
    "text",
    [
        '{"message_code":1109,"message":"Subscribed","trading_symbols":{"nse_cm|22":"ACC-EQ"}}',
        '{"message_code":1109,"error_code":0,"description":"SUBSCRIBED",'
        '"data":{"nse_cm|22":{"cas_status":1,"trading_symbols":"ACC-EQ"}}}',
        '{"message_code":1109,"trading_symbols":{"nse_cm|22":"ACC-EQ"},'
        '"data":{"nse_cm|22":{"cas_status":0}}}',
    ],
)
def test_acknowledgements_name_instruments_in_either_shape(text: str) -> None:
    control = read_control(text)
    assert control.message_code == 1109
    assert control.symbols == {"nse_cm|22": "ACC-EQ"}


DEEP = '{"a":' + "[" * 100_000


@pytest.mark.parametrize("divider", ["-100", "-1", "1" + "0" * 310, "1.5", '"many"', "null", "[]"])
def test_a_divider_that_is_none_is_refused_with_its_frame(divider: str) -> None:
    with pytest.raises(ProtocolError, match="feed control frame"):
        read_control(f'{{"message_code":1117,"exchanges":{{"nse_cm":{{"divider":{divider}}}}}}}')


def test_a_name_that_cannot_be_read_is_left_out_of_an_acknowledgement() -> None:
    control = read_control(
        '{"message_code":1109,"message":null,"trading_symbols":{"nse_cm|1":5,"nse_cm|22":"ACC-EQ"},'
        '"data":{"nse_cm|3":{"trading_symbols":null},"nse_cm|4":{"trading_symbols":"TCS-EQ"}}}'
    )
    assert control.message_code == 1109
    assert control.symbols == {"nse_cm|22": "ACC-EQ", "nse_cm|4": "TCS-EQ"}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"message_code":"x"}', b"\xff", DEEP])
def test_what_is_no_control_frame_raises_the_documented_error(text: str | bytes) -> None:
    with pytest.raises(ProtocolError, match="feed control frame"):
        read_control(text)


def test_sizes_on_the_wire() -> None:
    assert (LITE.size, SCRIP.size, ROW.size, PICTURE) == (54, 144, 16, 7208)
