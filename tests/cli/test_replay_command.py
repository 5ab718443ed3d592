"""neo-async exchange --replay, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from neo_async import Credentials, Endpoints, Level, NeoClient, OrderSettings
from neo_async.model.ticks import LiteTick, Tick
from neo_async.wire.feed import FeedEncoder, acknowledgement_frame
from neo_async.wire.recording import FILE_HEADER, BlockBuilder, encode_block
from tests.cli.test_exchange_command import COMMAND, running

TCS = "nse_cm|11536"


def recording(path: Path, prices: list[float]) -> Path:
    """Of one instrument, with a minute between two prices."""
    encoder, builder = FeedEncoder(), BlockBuilder()
    builder.add(0, acknowledgement_frame({TCS: "TCS-EQ"}))
    for minute, price in enumerate(prices):
        tick = LiteTick(TCS, "", price, minute, 10, 2100.0, 0.0, 0.0, 1, 2, 1, 0)
        builder.add(minute * 60_000_000_000, encoder.lite(tick))
    path.write_bytes(FILE_HEADER + encode_block(*builder.take()))
    return path


async def prices_seen(ready: dict[str, Any], count: int) -> list[float]:
    credentials = Credentials(**ready["accounts"][0])
    endpoints = Endpoints(login=ready["login_url"])
    seen: asyncio.Queue[Tick] = asyncio.Queue()
    async with (
        NeoClient(
            credentials, endpoints=endpoints, orders=OrderSettings(live_updates=False)
        ) as neo,
        neo.market_feed(level=None, on_tick=seen.put_nowait) as feed,
    ):
        await feed.subscribe([TCS], level=Level.LITE)
        async with asyncio.timeout(10):
            return [(await seen.get()).last_price for _ in range(count)]  # type: ignore[union-attr]


@pytest.mark.skipif(os.name != "posix", reason="ends by a POSIX signal")
@pytest.mark.real_time("the exchange is a real process")
async def test_it_plays_at_the_speed_asked_for_and_tells_of_the_end_on_stderr(
    tmp_path: Path,
) -> None:
    prices = [2101.0, 2102.5, 2099.95]
    path = recording(tmp_path / "x.feed", prices)
    with running("--replay", str(path), "--speed", "0") as (process, ready):
        assert await prices_seen(ready, 3) == prices
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=10)
    assert (process.returncode, rest) == (0, "")
    assert errors.splitlines() == [
        f"# recorded: {TCS} TCS-EQ",
        "# the replay has ended after 4 frames",
    ]


def test_a_file_that_is_no_recording_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.feed"
    path.write_text("date,open,high,low,close\n")
    done = subprocess.run(
        [*COMMAND, "--replay", str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert "is no recording of a market feed" in " ".join(done.stderr.split())
