"""Recordings played back as the market: from a client's feed to another client's, and to orders."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import Interval, Level, MarketState, OrderStatus, Product, Segment, Side, UsageError
from neo_async.base.india import in_india
from neo_async.exchange import Exchange, Recording
from neo_async.exchange.replay.lower_levels import packet_at
from neo_async.model.ticks import DepthRow, IndexTick, LiteTick, ScripTick, Tick
from neo_async.wire.feed import FeedDecoder, FeedEncoder, Stream, acknowledgement_frame, split
from neo_async.wire.recording import (
    FILE_HEADER,
    BlockBuilder,
    Frame,
    encode_block,
    read_recording,
)
from tests.clients import client_of, exchange_of
from tests.simulation.virtual_time import in_virtual_time

TCS, NEWCO, FUTURE = "nse_cm|11536", "nse_cm|999001", "nse_fo|999002"
START = 1_795_000_000_000_000_000
ANSWER = (
    '{"message_code":1117,"format":"native_batch","exchanges":{"nse_cm":{"value":1,"divider":100},'
    '"nse_fo":{"value":2,"divider":100}}}'
)


def lite(instrument: str, price: float, *, at: int = 1, lot_size: int = 1) -> LiteTick:
    close = 1000.0
    return LiteTick(instrument, "", price, at, 10, close, price - close, 0.0, lot_size, 2, 1, 0)


def depth(instrument: str, price: float, *, volume: int, close: float = 3000.0) -> ScripTick:
    bids = tuple(DepthRow(100 * n, price - 0.05 * n, n) for n in range(1, 6))
    asks = tuple(DepthRow(100 * n, price + 0.05 * n, n) for n in range(1, 6))
    return ScripTick(
        instrument, "", Level.DEPTH, price, 1, 1, 10, price, price, price, close, price, volume,
        1.0, 1000, 2000, 0, price - close, 0.0, close * 1.1, close * 0.9, 5000.0, 10.0, 1, 2, 1,
        False, bids, asks, 0,
    )  # fmt: skip


def index(value: float) -> IndexTick:
    return IndexTick(
        "", "", "Nifty 50", 26000, value, 1, value, value, value, 24000.0, 0.0, 0.0, value, value,
        2, 1.0, 0,
    )  # fmt: skip


class Tape:
    """A recording that a test writes."""

    def __init__(self, path: Path, symbols: dict[str, str]) -> None:
        self.path = path
        self.frames: list[Frame] = []
        self._encoder = FeedEncoder()
        self.add(0, ANSWER)
        self.add(0, acknowledgement_frame(symbols))

    def add(self, seconds: float, content: str | bytes | None) -> None:
        self.frames.append(Frame(START + int(seconds * 1e9), content))

    def ticks(self, seconds: float, *ticks: Tick) -> None:
        packets = b""
        for tick in ticks:
            if isinstance(tick, LiteTick):
                packets += self._encoder.lite(tick)
            elif isinstance(tick, IndexTick):
                packets += self._encoder.index("nse_cm", tick)
            elif isinstance(tick, ScripTick):
                packets += self._encoder.scrip(tick)
        self.add(seconds, packets)

    def write(self) -> Path:
        builder = BlockBuilder()
        for frame in self.frames:
            builder.add(frame.received_ns, frame.content)
        self.path.write_bytes(FILE_HEADER + encode_block(*builder.take()))
        return self.path


def packets_of(path: Path) -> list[bytes]:
    return [
        packet
        for frame in read_recording(path)
        if isinstance(frame.content, bytes)
        for packet in split(frame.content)
    ]


async def until_replayed(exchange: Exchange) -> None:
    async with asyncio.timeout(3600):
        assert exchange.replay is not None
        await exchange.replay.ended.wait()
        await exchange.feeds.market.until_sent()


async def test_a_second_client_receives_what_the_first_recorded_packet_for_packet(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "first.feed", tmp_path / "second.feed"
    levels = (Level.LITE, Level.DEPTH)
    instruments = [TCS, "nse_cm|2885", "nse_fo|53001"]
    async with (
        exchange_of(market_makers=True) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None) as feed,
        feed.record(first),
    ):
        for level in levels:
            await feed.subscribe(instruments, level=level)
        await feed.subscribe_indices(["nse_cm|Nifty 50"])
        await feed.until_live()
        await asyncio.sleep(60)
    assert len(packets_of(first)) > 500

    seen: list[Tick] = []
    async with (
        exchange_of(market_makers=True, seed=8, replay=first, speed=0) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None, on_tick=seen.append) as feed,
        feed.record(second),
    ):
        for level in levels:
            await feed.subscribe(instruments, level=level)
        await feed.subscribe_indices(["nse_cm|Nifty 50"])
        await until_replayed(exchange)
        await asyncio.sleep(1)
        assert feed.symbols[TCS] == "TCS-EQ"
        assert feed.symbols["nse_cm|Nifty 50"] == "Nifty 50-IN"
        ticks = feed.ticks
        assert exchange.market.last_price(
            exchange.market.listing_by_token(Segment.NSE_CM, "11536")
        ) == round(feed.latest(TCS).last_price * 100)

    assert packets_of(second) == packets_of(first)
    assert ticks == len(packets_of(first))
    assert len(seen) < ticks, "indices are no prices"


@pytest.mark.parametrize(("speed", "seconds"), [(1.0, 30.0), (10.0, 3.0), (0.5, 60.0), (0, 0.0)])
def test_times_are_those_of_the_recording_over_the_speed(
    tmp_path: Path, speed: float, seconds: float
) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    tape.ticks(0, lite(TCS, 1001))
    tape.ticks(30, lite(TCS, 1002))

    @in_virtual_time
    async def play() -> None:
        times: list[float] = []
        loop = asyncio.get_running_loop()
        async with (
            exchange_of(replay=tape.write(), speed=speed) as exchange,
            client_of(exchange) as neo,
            # Silence of half a minute is no reason to reconnect while the market is closed.
            neo.market_feed(
                level=None,
                on_tick=lambda _: times.append(loop.time()),
                market_open=lambda: False,
            ) as feed,
        ):
            await feed.subscribe([TCS], level=Level.LITE)
            await until_replayed(exchange)
            await asyncio.sleep(0.1)
        assert times[1] - times[0] == pytest.approx(seconds, abs=0.05)

    play()


def test_without_waiting_it_goes_as_fast_as_subscribers_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neo_async.exchange.feeds.topics.BACKLOG", 4000)
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    for second in range(500):
        tape.ticks(second, lite(TCS, 1001 + second))

    @in_virtual_time
    async def play() -> None:
        seen: list[Tick] = []
        async with (
            exchange_of(replay=tape.write(), speed=0) as exchange,
            client_of(exchange) as neo,
            neo.market_feed(level=None, on_tick=seen.append) as feed,
        ):
            await feed.subscribe([TCS], level=Level.LITE)
            await feed.until_live()
            await asyncio.sleep(0.1)
            exchange.feeds.stall(5)
            await until_replayed(exchange)
            await asyncio.sleep(0.1)
        assert len(seen) == 500

    play()


async def test_each_level_gets_its_own_packets_and_nobody_gets_others(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ", NEWCO: "NEWCO-EQ"})
    tape.ticks(0, lite(TCS, 1001), depth(TCS, 1001, volume=5), lite(NEWCO, 55), index(24500))
    seen: list[Tick] = []
    async with (
        exchange_of(replay=tape.write(), speed=0) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None, on_tick=seen.append) as feed,
    ):
        await feed.subscribe([TCS], level=Level.DEPTH)
        await feed.subscribe_indices(["nse_cm|nifty 50"])
        await until_replayed(exchange)
        await asyncio.sleep(0.1)

        assert feed.ticks == 2
        assert feed.latest_index("nse_cm|nifty 50") is not None
    assert [(type(tick), tick.level) for tick in seen] == [(ScripTick, 8)]


async def test_who_comes_late_gets_the_newest_packet_and_then_the_rest(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    for second in range(10):
        tape.ticks(second, lite(TCS, 1000 + second))
    seen: list[Tick] = []
    async with (
        exchange_of(replay=tape.write()) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None) as early,
        neo.market_feed(level=None, on_tick=seen.append) as late,
    ):
        await early.subscribe([TCS], level=Level.LITE)
        await asyncio.sleep(5)
        await late.subscribe([TCS], level=Level.LITE)
        await until_replayed(exchange)
        await asyncio.sleep(0.1)

    prices = [tick.last_price for tick in seen]
    assert prices == list(range(1004, 1010))


async def test_orders_trade_against_recorded_quotes_and_prices(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    tape.ticks(0, depth(TCS, 3000.00, volume=1))
    tape.ticks(20, depth(TCS, 2990.00, volume=2))
    async with (
        exchange_of(replay=tape.write(), market_makers=True) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None) as feed,
    ):
        await feed.subscribe([TCS], level=Level.DEPTH)
        await asyncio.sleep(5)
        taken = await neo.orders.place(
            Segment.NSE_CM, "TCS-EQ", Side.BUY, 150, price="3000.10", product=Product.MIS
        )
        await taken.wait(OrderStatus.COMPLETE, timeout=5)
        waiting = await neo.orders.place(
            Segment.NSE_CM, "TCS-EQ", Side.BUY, 10, price="2990.00", product=Product.MIS
        )
        with pytest.raises(TimeoutError):
            await waiting.wait(OrderStatus.COMPLETE, timeout=5)
        await waiting.wait(OrderStatus.COMPLETE, timeout=30)

    # 100 at 3000.05 and 50 at 3000.10.
    assert float(taken.average_price) == pytest.approx(3000.07, abs=0.005)
    assert float(waiting.average_price) == 2990.00


async def test_quotes_without_a_new_trade_fill_nobody_at_the_last_price(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    for second in range(5):
        tape.ticks(second, depth(TCS, 3000.00, volume=1))
    async with (
        exchange_of(replay=tape.write()) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None) as feed,
    ):
        await feed.subscribe([TCS], level=Level.DEPTH)
        await asyncio.sleep(1)
        order = await neo.orders.place(
            Segment.NSE_CM, "TCS-EQ", Side.BUY, 10, price="3000.00", product=Product.MIS
        )
        await until_replayed(exchange)
        await asyncio.sleep(1)
        assert order.filled_quantity == 0


async def test_what_was_not_listed_is_listed_as_it_was_recorded(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "x.feed", {NEWCO: "NEWCO-BE", FUTURE: "NEWCO26DECFUT"})
    tape.ticks(0, lite(NEWCO, 1010), lite(FUTURE, 1015, lot_size=75), lite("nse_cm|5", 9))
    async with (
        exchange_of(replay=tape.write()) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None) as feed,
    ):
        share = exchange.market.listing(Segment.NSE_CM, "NEWCO-BE")
        future = exchange.market.listing(Segment.NSE_FO, "NEWCO26DECFUT")
        assert (share.name, share.series, share.base_price) == ("NEWCO", "BE", 1000_00)
        assert (share.lower_band, share.upper_band) == (800_00, 1200_00)
        assert future.lot_size == 75
        assert exchange.market.listing_by_token(Segment.NSE_CM, "5") is None
        await feed.subscribe([NEWCO, FUTURE], level=Level.LITE)
        await until_replayed(exchange)
        order = await neo.orders.place(
            Segment.NSE_CM, "NEWCO-BE", Side.BUY, 10, price="1010.01", product=Product.MIS
        )
        await order.wait(OrderStatus.COMPLETE, timeout=5)


async def test_closes_and_bands_are_the_recordings(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    tape.ticks(0, lite(TCS, 3100.0), depth(TCS, 3100.0, volume=1, close=3000.0))
    async with exchange_of(replay=tape.write()) as exchange:
        listing = exchange.market.listing(Segment.NSE_CM, "TCS-EQ")

        assert (listing.base_price, listing.lower_band, listing.upper_band) == (
            3000_00,
            2700_00,
            3300_00,
        )
        assert listing.isin == "INE467B01029"


async def test_other_dividers_make_clients_connect_anew(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    tape.ticks(0, lite(TCS, 1001.0))
    tape.add(10, None)
    tape.add(11, ANSWER.replace("100}", "1000}", 1))
    tape._encoder = FeedEncoder({"nse_cm": 1000})
    tape.ticks(20, lite(TCS, 1002.0))
    seen: list[Tick] = []
    async with (
        exchange_of(replay=tape.write()) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None, on_tick=seen.append) as feed,
    ):
        await feed.subscribe([TCS], level=Level.LITE)
        await until_replayed(exchange)
        await asyncio.sleep(0.1)
        assert feed.reconnects == 1

    assert seen[0].last_price == 1001.0
    assert seen[-1].last_price == 1002.0


async def test_a_damaged_recording_plays_up_to_the_damage_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    tape.ticks(0, lite(TCS, 1001.0))
    path = tape.write()
    path.write_bytes(path.read_bytes() + b"\x07")
    async with (
        exchange_of(replay=path, speed=0) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None) as feed,
    ):
        await feed.subscribe([TCS], level=Level.LITE)
        await until_replayed(exchange)
        assert exchange.replay is not None
        assert exchange.replay.frames == 3
        assert "cut off" in exchange.replay.damage
    assert "cut off" in caplog.text


async def test_a_bad_file_or_speed_is_refused_before_anything_opens(tmp_path: Path) -> None:
    for speed in (-1.0, float("nan")):
        with pytest.raises(UsageError, match="speed"):
            exchange_of(replay=tmp_path / "x.feed", speed=speed)
    with pytest.raises(UsageError, match="No such file"):
        async with exchange_of(replay=tmp_path / "x.feed"):
            pass


async def test_an_exchange_without_a_recording_has_no_replay() -> None:
    async with exchange_of() as exchange:
        assert exchange.replay is None


# --- lower levels, the recorded time, damaged files ----------------------------------------------


LEVELS = (Level.LITE, Level.SCRIP, Level.DEPTH)


@pytest.mark.parametrize("recorded", LEVELS)
@pytest.mark.parametrize("is_late", [False, True])
async def test_a_recorded_level_serves_itself_and_those_below(
    tmp_path: Path, recorded: Level, is_late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    full = depth(TCS, 3001.05, volume=7)
    made: dict[Level, Tick] = {
        Level.DEPTH: full,
        Level.SCRIP: msgspec.structs.replace(
            full, level=Level.SCRIP, bids=full.bids[:1], asks=full.asks[:1]
        ),
        Level.LITE: LiteTick(
            TCS, "", full.last_price, 1, 10, full.close, full.change, 0.0, 1, 2, 1, 0
        ),
    }
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    tape.ticks(0, made[recorded])
    tape.ticks(60, lite("nse_cm|5", 9))
    async with (
        exchange_of(replay=tape.write()) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None) as feed,
        neo.market_feed(level=None) as starter,
    ):
        await starter.subscribe(["nse_cm|5"], level=Level.LITE)
        await asyncio.sleep(5 if is_late else 0)
        for level in LEVELS:
            await feed.subscribe([TCS], level=level)
        await asyncio.sleep(10)
        for level in LEVELS:
            tick = feed.latest(TCS, level=level)
            if level > recorded:
                assert tick is None
                assert f"{TCS} ({level.name})" in feed.unacknowledged
                assert "not recorded at level" in caplog.text
            else:
                assert tick is not None
                tape.ticks(0, made[level])
                (expected,) = FeedDecoder().decode(tape.frames[-1].content, tick.received_ns)
                assert tick == msgspec.structs.replace(expected, symbol="TCS-EQ")


@given(
    bids=st.integers(0, 5),
    asks=st.integers(0, 5),
    level=st.sampled_from([8, 16]),
    price=st.floats(1, 9e4),
)
def test_a_lower_packet_has_the_figures_of_the_higher(
    bids: int, asks: int, level: int, price: float
) -> None:
    price = round(price, 2)
    full = depth(TCS, price, volume=7)
    full = msgspec.structs.replace(full, level=level, bids=full.bids[:bids], asks=full.asks[:asks])
    packet = FeedEncoder().scrip(full)
    (before,) = FeedDecoder().decode(packet, 0)
    for stream, rows in ((Stream.DEPTH, 5), (Stream.SCRIP, 1)):
        (tick,) = FeedDecoder().decode(packet_at(stream, packet), 0)
        for side in ("bids", "asks"):
            kept = getattr(before, side)[:rows]
            empty = (DepthRow(0, 0.0, 0),) * (rows - len(kept))
            assert getattr(tick, side) == kept + empty
        same = msgspec.structs.replace(tick, level=level, bids=before.bids, asks=before.asks)
        assert same == before
    (tick,) = FeedDecoder().decode(packet_at(Stream.LITE, packet), 0)
    assert isinstance(tick, LiteTick)
    names = set(LiteTick.__struct_fields__)
    assert {n: getattr(tick, n) for n in names} == {n: getattr(before, n) for n in names}
    assert packet_at(Stream.LITE, packet[:50]) == b""


@pytest.mark.parametrize("speed", [1.0, 60.0, 0.0])
def test_the_clock_and_the_candles_are_of_the_recorded_day_at_any_speed(
    tmp_path: Path, speed: float
) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    recorded = {0: 3000.0, 10: 3004.0, 30: 3002.0, 150: 3001.0}  # a minute begins at 20
    for volume, (second, price) in enumerate(recorded.items(), start=1):
        tape.ticks(second, depth(TCS, price, volume=volume))

    @in_virtual_time
    async def play() -> None:
        async with (
            exchange_of(replay=tape.write(), speed=speed) as exchange,
            client_of(exchange) as neo,
        ):
            assert exchange.time_ns() == START
            await asyncio.sleep(30)
            assert exchange.time_ns() == START, "it waits for the first subscription"
            seen: list[ScripTick] = []
            async with neo.market_feed(
                on_tick=seen.append,
                time_ns=exchange.time_ns,
                # Silence of half a minute is no reason to reconnect while the market is closed.
                market_open=lambda: False,
            ) as feed:
                await feed.subscribe([TCS], level=Level.DEPTH)
                await until_replayed(exchange)
                await asyncio.sleep(0.1)
                assert exchange.time_ns() == pytest.approx(START + 150e9, abs=2e9)
                if speed == 1.0:
                    times = [(tick.received_ns - START) / 1e9 for tick in seen]
                    assert times == pytest.approx(list(recorded), abs=0.2)
                day = in_india(START / 1e9).date()
                bars = await neo.market.candles(TCS, Interval.MINUTE, start=day, end=day)
                await asyncio.sleep(10)
                assert exchange.time_ns() == pytest.approx(START + 160e9, abs=2e9)
            assert [(bar.open, bar.high, bar.low, bar.close) for bar in bars][:2] == [
                (3000.0, 3004.0, 3000.0, 3004.0),
                (3002.0, 3002.0, 3002.0, 3002.0),
            ]
            assert bars.volume == [1, 1, 1], "the first tick's trades were before the replay"
            assert bars.time[0] == in_india(START // 60_000_000_000 * 60)

    play()


async def test_the_end_of_a_replay_closes_its_segments_in_word(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    tape.ticks(0, lite(TCS, 1001))
    async with (
        exchange_of(replay=tape.write()) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=Level.LITE) as feed,
    ):
        await feed.subscribe_status()
        await feed.subscribe([TCS])
        await until_replayed(exchange)
        await asyncio.sleep(0.1)
        states = {s: feed.latest_status(s).code for s in ("nse_cm", "mcx_fo")}
    assert states == {"nse_cm": MarketState.CLOSED, "mcx_fo": MarketState.OPEN}


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (0, "cut off in its header"),
        (10, "it has no tick"),
        (40, "the block at byte 10 is cut off after"),
        (20, "the block at byte 10 is cut off in its header"),
    ],
)
async def test_a_recording_of_which_nothing_is_readable_is_refused(
    tmp_path: Path, kept: int, words: str
) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    tape.ticks(0, lite(TCS, 1001))
    path = tape.write()
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match=f"cannot be played: .*{words}"):
        async with exchange_of(replay=path):
            pass


async def test_a_recording_cut_in_its_middle_is_named_before_it_is_played(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tape = Tape(tmp_path / "x.feed", {TCS: "TCS-EQ"})
    tape.ticks(0, lite(TCS, 1001))
    path = tape.write()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[10:-5])
    async with exchange_of(replay=path):
        assert f"the block at byte {len(whole)} is cut off after" in caplog.text
        assert caplog.records[-1].levelname == "WARNING"


@pytest.mark.parametrize("speed", [-1, float("nan"), float("inf"), "5", None, True])
def test_a_speed_that_is_no_factor_is_refused(speed: Any) -> None:
    with pytest.raises(UsageError, match="speed="):
        Recording(Path("day.feed"), speed=speed)


@pytest.mark.parametrize("path", [5, None, b"day.feed"])
def test_what_is_no_path_is_no_recording(path: Any) -> None:
    with pytest.raises(UsageError, match="path="):
        Recording(path)
