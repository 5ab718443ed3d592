"""Ticks of a recording, read back without an exchange."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import pytest

from neo_async import Level, recorded_ticks
from neo_async.model.ticks import Tick
from tests.clients import client_of, exchange_of

TCS = "nse_cm|11536"


async def test_a_recording_is_read_back_as_the_ticks_that_came(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.feed"
    seen: list[Tick] = []
    async with (
        exchange_of(market_makers=True) as exchange,
        client_of(exchange) as neo,
        neo.market_feed(level=None, on_tick=seen.append) as feed,
        feed.record(path),
    ):
        await feed.subscribe([TCS], level=Level.LITE)
        await feed.subscribe([TCS], level=Level.DEPTH)
        await asyncio.sleep(20)
    read = [*recorded_ticks(path)]
    assert len(read) > 10
    times = [tick.received_ns for tick in read]
    assert times == sorted(times)
    assert min(times) > 0
    assert [msgspec.structs.replace(tick, received_ns=0) for tick in read] == [
        # The recording ends before the feed does.
        msgspec.structs.replace(tick, received_ns=0)
        for tick in seen[: len(read)]
    ]
    assert {tick.symbol for tick in read} == {"TCS-EQ"}
    assert not caplog.text
    path.write_bytes(path.read_bytes()[:-3])
    kept = [*recorded_ticks(path)]
    assert read[: len(kept)] == kept != read
    assert re.search(r"the block at byte \d+ is cut off after", caplog.text)
