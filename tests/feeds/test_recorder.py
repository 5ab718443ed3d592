"""Recordings of live feeds: what they hold, and how they end when the disk or the process fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest

from neo_async import Level, UsageError
from neo_async.exchange import Exchange
from neo_async.feeds import recorder
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.recorder import Recording
from neo_async.model.enums import Segment
from neo_async.model.ticks import LiteTick, Tick
from neo_async.wire.feed import FeedDecoder, read_control
from neo_async.wire.recording import Frame, read_recording
from tests.clients import client_of, exchange_of

TCS = "nse_cm|11536"


def recording_of(path: Path, greeting: list[str] | None = None) -> Recording:
    return Recording(path, overwrite=False, greeting=lambda: greeting or [], on_end=lambda _: None)


def contents(path: Path) -> list[bytes | str | None]:
    reader = read_recording(path)
    frames = [frame.content for frame in reader]
    assert not reader.damage
    return frames


def decoded(frames: list[Frame]) -> list[Tick]:
    """Ticks, by nothing but what the recording says."""
    decoder = FeedDecoder()
    ticks: list[Tick] = []
    for frame in frames:
        if isinstance(frame.content, str):
            control = read_control(frame.content)
            decoder.set_exchanges(control)
            decoder.set_symbols(control.symbols)
        elif frame.content is not None:
            ticks += decoder.decode(frame.content, 0)
    return ticks


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def print_and_wait(exchange: Exchange, feed: MarketFeed, *prices: int) -> None:
    """Let trades print, each seen by the feed before the next."""
    for price in prices:
        before = feed.ticks
        exchange.market.print_price(Segment.NSE_CM, "11536", price)
        exchange.tick()
        await until(lambda: feed.ticks > before)  # noqa: B023 - awaited here


async def test_all_that_the_feed_receives_is_in_the_file_and_can_be_decoded_from_it_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.feed"
    seen: list[Tick] = []
    async with exchange_of() as exchange, client_of(exchange) as neo:
        async with neo.market_feed(level=None, on_tick=seen.append) as feed:
            recording = feed.record(path)
            await feed.subscribe([TCS], level=Level.LITE)
            await feed.until_live()
            await print_and_wait(exchange, feed, 2117_05, 2117_10)
            assert recording.is_open
        assert not recording.is_open

    ticks = decoded(list(read_recording(path)))
    assert [tick.last_price for tick in ticks] == [tick.last_price for tick in seen]
    assert [tick.symbol for tick in ticks] == ["TCS-EQ"] * len(seen)
    assert recording.frames == len(contents(path))
    assert recording.bytes_stored == path.stat().st_size


async def test_a_recording_that_starts_late_begins_with_dividers_and_names(tmp_path: Path) -> None:
    path = tmp_path / "x.feed"
    async with (
        exchange_of() as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None) as feed,
    ):
        await feed.subscribe([TCS], level=Level.LITE)
        await feed.until_live()
        await print_and_wait(exchange, feed, 2117_05)
        async with feed.record(path):
            await print_and_wait(exchange, feed, 2117_10)
        await print_and_wait(exchange, feed, 2117_15)

    answer, names, *packets = contents(path)
    assert read_control(str(answer)).exchanges["nse_cm"].divider == 100
    assert read_control(str(names)).symbols == {TCS: "TCS-EQ"}
    assert len(packets) == 1
    tick = decoded(list(read_recording(path)))[-1]
    assert isinstance(tick, LiteTick)
    assert (tick.symbol, tick.last_price) == ("TCS-EQ", 2117.10)


async def test_a_reconnect_shows_as_a_gap_and_a_new_answer(tmp_path: Path) -> None:
    path = tmp_path / "x.feed"
    async with (
        exchange_of() as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None) as feed,
        feed.record(path),
    ):
        await feed.subscribe([TCS], level=Level.LITE)
        await feed.until_live()
        await print_and_wait(exchange, feed, 2117_05)
        exchange.feeds.drop_connections("market")
        await until(lambda: feed.reconnects)
        await print_and_wait(exchange, feed, 2117_10)

    frames = contents(path)
    gap = frames.index(None)
    assert None not in frames[gap + 1 :]
    assert read_control(str(frames[0])).exchanges == read_control(str(frames[gap + 1])).exchanges
    assert read_control(str(frames[gap + 2])).symbols == {TCS: "TCS-EQ"}


async def test_no_secret_is_in_a_recording_even_if_the_server_sends_them(tmp_path: Path) -> None:
    path = tmp_path / "x.feed"
    async with exchange_of() as exchange, client_of(exchange) as neo:
        session, credentials = neo.session, exchange.credentials
        async with neo.market_feed(level=None) as feed, feed.record(path):
            await feed.subscribe([TCS], level=Level.DEPTH)
            await feed.until_live()
            await print_and_wait(exchange, feed, 2117_05)
            for connection in exchange.feeds.market.connections:
                secrets = f"{session.sid} {session.token}"
                connection.enqueue(f'{{"message_code":1,"message":"{secrets}"}}')
            await print_and_wait(exchange, feed, 2117_10)

    everything = repr(contents(path)).encode()
    assert b'"message":"*** ***"' in everything
    for secret in (
        session.sid,
        session.token,
        credentials.consumer_key,
        credentials.mpin,
        credentials.totp_secret,
        "inputtoken",
        "conn_req_time",
    ):
        assert secret.encode() not in everything


async def test_columns_are_recorded_as_well(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    path = tmp_path / "x.feed"
    async with (
        exchange_of() as exchange,
        client_of(exchange) as neo,
        neo.column_feed(level=Level.LITE) as feed,
        feed.record(path) as recording,
    ):
        await feed.subscribe([TCS], level=Level.LITE)
        await feed.until_live()
        await until(lambda: recording.frames >= 4)  # answer, no names, names, a packet

    assert any(isinstance(tick, LiteTick) for tick in decoded(list(read_recording(path))))


async def test_an_existing_file_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.feed"
    path.write_bytes(b"precious")
    async with exchange_of() as exchange, client_of(exchange) as neo:
        feed = neo.market_feed(level=None)
        with pytest.raises(UsageError, match="overwrite=True"):
            feed.record(path)
        assert path.read_bytes() == b"precious"
        async with feed.record(path, overwrite=True):
            pass
        assert contents(path) == []
        with pytest.raises(UsageError, match="No such file"):
            feed.record(tmp_path / "no" / "x.feed")


async def test_a_block_is_in_the_file_after_a_second_without_more_frames(tmp_path: Path) -> None:
    path = tmp_path / "x.feed"
    async with recording_of(path) as recording:
        recording.add(b"first")
        await asyncio.sleep(recorder.BLOCK_SECONDS / 2)
        assert contents(path) == []
        await asyncio.sleep(recorder.BLOCK_SECONDS / 2)
        await idle(recording)
        assert contents(path) == [b"first"]


async def idle(recording: Recording) -> None:
    """Until the thread has written everything handed to it."""
    await asyncio.wrap_future(recording._writer.submit(lambda: None))


def fill_disk(recording: Recording) -> None:
    recording._file.close()
    recording._file = FileIO("/dev/full", "w")


async def test_a_full_disk_ends_the_recording_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.feed"
    ended: list[Recording] = []
    recording = Recording(path, overwrite=False, greeting=list, on_end=ended.append)
    monkeypatch.setattr(recorder, "BLOCK_BYTES", 10)
    recording.add(b"a whole block")
    await idle(recording)
    fill_disk(recording)
    recording.add(b"a block too many")
    await idle(recording)
    await asyncio.sleep(0)

    assert isinstance(recording.error, OSError)
    assert ended == [recording]
    assert not recording.is_open
    assert "No space left" in repr(recording)
    assert "No space left" in caplog.text
    recording.add(b"late, and ignored by the file")
    await recording.close()
    assert contents(path) == [b"a whole block"]


async def test_a_disk_that_fails_leaves_the_feed_running(tmp_path: Path) -> None:
    path = tmp_path / "x.feed"
    async with (
        exchange_of() as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None) as feed,
    ):
        await feed.subscribe([TCS], level=Level.LITE)
        await feed.until_live()
        recording = feed.record(path)
        fill_disk(recording)
        await print_and_wait(exchange, feed, 2117_05)
        await until(lambda: not recording.is_open)
        await print_and_wait(exchange, feed, 2117_10)
        assert feed.is_live
        assert feed.reconnects == 0


@pytest.mark.real_time("holds up a real thread")
async def test_a_slow_disk_costs_frames_that_are_counted_and_memory_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(recorder, "BACKLOG", 10_000)
    path = tmp_path / "x.feed"
    recording = recording_of(path, greeting=["hello"])
    release = threading.Event()
    recording._writer.submit(release.wait)
    sent = 0
    while recording.dropped < 50:
        recording.add(bytes(200))
        sent += 1
    release.set()
    await idle(recording)
    recording.add(b"after the pause")
    await recording.close()

    frames = contents(path)
    assert frames[-3:] == [None, "hello", b"after the pause"]
    assert frames.count(bytes(200)) == sent - 50
    assert recording._submitted < 2 * 10_000 + 1000


async def test_closing_twice_and_at_once_is_fine(tmp_path: Path) -> None:
    recording = recording_of(tmp_path / "x.feed")
    recording.add(b"frame")
    await asyncio.gather(recording.close(), recording.close())
    await recording.close()

    assert contents(tmp_path / "x.feed") == [b"frame"]
    assert "1 frames" in repr(recording)


_KILLED = """
import asyncio, itertools, sys
from neo_async.feeds.recorder import Recording

async def main():
    recording = Recording(sys.argv[1], overwrite=False, greeting=list, on_end=lambda _: None)
    for number in itertools.count():
        recording.add(number.to_bytes(4, "little") * 50)
        if number % 1000 == 0:
            await asyncio.sleep(0.001)
            if recording.bytes_stored > 20_000:
                print("enough", flush=True)

asyncio.run(main())
"""


def test_a_killed_process_leaves_a_file_that_reads_up_to_its_last_whole_block(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.feed"
    root = Path(recorder.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"enough\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    numbers = [int.from_bytes(content[:4], "little") for content in _binary(path)]
    assert len(numbers) > 1000
    assert numbers == list(range(len(numbers)))


def _binary(path: Path) -> list[bytes]:
    return [frame.content for frame in read_recording(path) if isinstance(frame.content, bytes)]


async def test_a_recording_is_its_owners_alone_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "open-to-all").write_bytes(b"")
    (tmp_path / "open-to-all").chmod(0o666)
    for name in ("link", "fifo", "open-to-all"):
        with pytest.raises(UsageError, match="cannot record"):
            Recording(tmp_path / name, overwrite=True, greeting=list, on_end=lambda _: None)
    for name in ("with\0zero", "half\ud800"):
        with pytest.raises(UsageError, match="cannot record"):
            Recording(f"{tmp_path}/{name}", overwrite=True, greeting=list, on_end=lambda _: None)
        with pytest.raises(UsageError, match="cannot read"):
            read_recording(f"{tmp_path}/{name}")
    with pytest.raises(UsageError, match="not a regular file"):
        read_recording(tmp_path / "fifo")
    recording = Recording(tmp_path / "new", overwrite=False, greeting=list, on_end=lambda _: None)
    await recording.close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
