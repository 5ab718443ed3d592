"""Ticks of a recording, read back without an exchange."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async import Level, UsageError, recorded_ticks
from neo_async.feeds.recorder import Recording
from neo_async.model.ticks import LiteTick, Tick
from neo_async.wire.feed import acknowledgement_frame
from tests.clients import client_of, exchange_of
from tests.feeds.market_servers import ACCEPTED, index, lite, scrip
from tests.simulation.virtual_time import in_virtual_time

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


# --- files that a test writes ---------------------------------------------------------------------


async def record(path: Path, *contents: bytes | str) -> None:
    recording = Recording(path, overwrite=True, greeting=list, on_end=lambda _: None)
    for content in contents:
        recording.add(content)
    await recording.close()


@settings(max_examples=20, deadline=None)  # each example writes a file
@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=3), max_size=8))
@in_virtual_time
async def test_ticks_are_read_in_their_order_however_they_were_batched(
    batches: list[list[int]],
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.feed")
        await record(path, ACCEPTED, *(b"".join(map(lite, batch)) for batch in batches))
        read = [*recorded_ticks(path)]
    expected = [f"nse_cm|{token}" for batch in batches for token in batch]
    assert [tick.instrument for tick in read] == expected
    assert all(isinstance(tick, LiteTick) and tick.last_price == 10.0 for tick in read)


async def test_ticks_of_every_kind_are_read_and_have_the_names_known_at_their_time(
    tmp_path: Path,
) -> None:
    names = acknowledgement_frame({"nse_cm|1": "ONE-EQ"})
    await record(tmp_path / "x.feed", ACCEPTED, lite(1), names, scrip(1), index(26000, "Nifty 50"))
    read = [*recorded_ticks(tmp_path / "x.feed")]
    assert [type(tick).__name__ for tick in read] == ["LiteTick", "ScripTick", "IndexTick"]
    assert [tick.symbol for tick in read[:2]] == ["", "ONE-EQ"]  # type: ignore[union-attr]


async def test_texts_that_are_no_control_frames_and_gaps_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.feed"
    recording = Recording(path, overwrite=True, greeting=list, on_end=lambda _: None)
    for content in (ACCEPTED, "{", lite(1)):
        recording.add(content)
    recording.mark_gap()
    for content in ("[]", lite(2)):
        recording.add(content)
    await recording.close()
    assert [tick.instrument for tick in recorded_ticks(path)] == ["nse_cm|1", "nse_cm|2"]


@pytest.mark.parametrize("content", [None, b"no recording at all"])
def test_a_file_that_is_no_recording_is_refused_before_the_first_tick(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "x.feed"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(str(path))):
        next(recorded_ticks(path))
