"""Buffers between a feed and a slower consumer, whatever the order of puts and takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import UsageError
from neo_async.feeds.buffers import (
    BlockingBuffer,
    ConflatingBuffer,
    DroppingBuffer,
    MessageBuffer,
    Policy,
    TickBuffer,
    tick_buffer,
)
from neo_async.model.enums import Level
from neo_async.model.ticks import LiteTick, MarketStatus, ScripTick, Tick

KEYS = [
    ("nse_cm|1", Level.LITE),
    ("nse_cm|1", Level.DEPTH),
    ("nse_cm|2", Level.LITE),
    ("nse_cm", -1),
]


def tick(key: tuple[str, int], number: int) -> Tick:
    """`number` distinguishes ticks: it is the time at which they were received."""
    name, level = key
    if level == Level.LITE:
        return LiteTick(name, "", 0.0, 0, 0, 0.0, 0.0, 0.0, 0, 0, 0, number)
    if level == -1:
        return MarketStatus(name, 1, "", number)
    zeros: tuple[Any, ...] = (0,) * 23
    return ScripTick(name, "", level, *zeros, False, (), (), number)


def key_of(tick: Tick) -> tuple[str, int]:
    return tick.instrument, tick.level


# Batches of keys that are put, and what the consumer does in between.
STEPS = st.lists(
    st.lists(st.sampled_from(KEYS), min_size=1, max_size=6) | st.sampled_from(["take", "give up"]),
    max_size=30,
)


async def play(buffer: TickBuffer, steps: list[Any]) -> tuple[list[Tick], list[Tick], list[int]]:
    """What was put, what was delivered, and how much was pending after each step.

    `take` begins to wait if nothing is pending, and is answered by the puts that follow;
    `give up` cancels a consumer that waits.
    """
    put: list[Tick] = []
    got: list[Tick] = []
    pending: list[int] = []
    consumer: asyncio.Task[list[Tick]] | None = None
    for step in steps:
        if step == "take" and consumer is None:
            consumer = asyncio.create_task(buffer.take())
            await asyncio.sleep(0)
        elif step == "give up" and consumer is not None and not consumer.done():
            consumer.cancel()
            await asyncio.wait([consumer])
            consumer = None
        elif isinstance(step, list):
            ticks = [tick(key, len(put) + n) for n, key in enumerate(step)]
            put += ticks
            held = buffer.put(ticks)
            if held is not None and hasattr(held, "close"):
                held.close()
        if consumer is not None and consumer.done():
            got += consumer.result()
            consumer = None
        pending.append(buffer.pending)
    if consumer is not None:
        if not buffer.pending:
            consumer.cancel()
        await asyncio.wait([consumer])
        got += [] if consumer.cancelled() else consumer.result()
    buffer.close()
    while rest := await buffer.take():
        got += rest
    return put, got, pending


@given(STEPS)
def test_conflation_delivers_the_newest_of_each_and_never_an_older_after_it(
    steps: list[Any],
) -> None:
    buffer = ConflatingBuffer()
    put, got, _ = asyncio.run(play(buffer, steps))
    assert buffer.lost + len(got) == len(put)
    for key in KEYS:
        sent = [tick.received_ns for tick in put if key_of(tick) == key]
        delivered = [tick.received_ns for tick in got if key_of(tick) == key]
        assert delivered == sorted(set(delivered))
        assert delivered[-1:] == sent[-1:]


@given(st.lists(st.lists(st.sampled_from(KEYS), min_size=1, max_size=6), max_size=30))
def test_conflation_keeps_one_of_each_in_the_order_in_which_they_appeared(
    batches: list[list[tuple[str, int]]],
) -> None:
    async def check() -> None:
        buffer = ConflatingBuffer()
        number = 0
        newest: dict[tuple[str, int], int] = {}
        for batch in batches:
            ticks = []
            for key in batch:
                newest[key] = number
                ticks.append(tick(key, number))
                number += 1
            buffer.put(ticks)
            assert buffer.pending == len(newest) <= len(KEYS)
        if newest:
            assert [(key_of(t), t.received_ns) for t in await buffer.take()] == [*newest.items()]
            assert buffer.pending == 0

    asyncio.run(check())


@given(STEPS)
def test_blocking_delivers_everything_in_its_order(steps: list[Any]) -> None:
    buffer = BlockingBuffer(1000)
    put, got, _ = asyncio.run(play(buffer, steps))
    assert got == put
    assert buffer.lost == 0


@given(STEPS, st.integers(1, 5))
def test_dropping_delivers_the_newest_and_counts_the_others(steps: list[Any], bound: int) -> None:
    buffer = DroppingBuffer(bound)
    put, got, pending = asyncio.run(play(buffer, steps))
    assert max(pending, default=0) <= bound
    assert buffer.lost + len(got) == len(put)
    numbers = [tick.received_ns for tick in got]
    assert numbers == sorted(set(numbers))
    assert got[-1:] == put[-1:]


@given(STEPS, st.integers(1, 5))
def test_blocking_never_holds_more_than_its_bound_and_a_message(
    steps: list[Any], bound: int
) -> None:
    buffer = BlockingBuffer(bound)
    put, got, pending = asyncio.run(play(buffer, steps))
    assert buffer.lost + len(got) == len(put), "ticks of a feed that does not wait"
    assert max(pending, default=0) < bound + 6


async def test_blocking_holds_up_until_the_consumer_has_taken() -> None:
    buffer = BlockingBuffer(3)
    assert buffer.put([tick(KEYS[0], 1), tick(KEYS[0], 2)]) is None
    held = buffer.put([tick(KEYS[0], 3)])
    assert held is not None
    waiting = asyncio.ensure_future(_wait(held))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert len(await buffer.take()) == 3
    await waiting
    assert buffer.put([tick(KEYS[0], 4)]) is None


async def _wait(held: Awaitable[None]) -> None:
    await held


@pytest.mark.parametrize("policy", list(Policy))
async def test_a_burst_reaches_a_waiting_consumer_in_one_list(policy: Policy) -> None:
    buffer = tick_buffer(policy, 100)
    taking = asyncio.create_task(buffer.take())
    await asyncio.sleep(0)
    buffer.put([tick(KEYS[0], 1), tick(KEYS[0], 2)])
    buffer.put([tick(KEYS[0], 3)])
    assert [tick.received_ns for tick in await taking] == [1, 2, 3]
    assert buffer.lost == 0, "a consumer that waits is not slow"


@pytest.mark.parametrize("policy", list(Policy))
async def test_a_second_consumer_is_refused(policy: Policy) -> None:
    buffer = tick_buffer(policy, 100)
    taking = asyncio.create_task(buffer.take())
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="open a second feed"):
        await buffer.take()
    buffer.close()
    assert await taking == []


@pytest.mark.parametrize("policy", list(Policy))
async def test_closing_leaves_what_is_pending(policy: Policy) -> None:
    buffer = tick_buffer(policy, 100)
    buffer.put([tick(KEYS[0], 1)])
    buffer.close()
    assert len(await buffer.take()) == 1
    assert await buffer.take() == await buffer.take() == []


@pytest.mark.parametrize("bound", [0, -1])
def test_a_bound_below_one_is_refused(bound: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        tick_buffer(Policy.BLOCK, bound)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 100))
def test_messages_are_kept_up_to_their_bound_and_the_newest_always(
    sizes: list[int], bound: int
) -> None:
    async def check() -> None:
        buffer = MessageBuffer(bound)
        messages = [bytes([number]) * size for number, size in enumerate(sizes)]
        for message in messages:
            buffer.put(message)
        buffer.close()
        kept = await buffer.take()
        assert kept == messages[len(messages) - len(kept) :]
        assert buffer.lost == len(messages) - len(kept)
        assert kept[-1:] == messages[-1:]
        assert len(kept) <= 1 or sum(map(len, kept)) <= bound
        if buffer.lost:
            assert sum(map(len, messages[buffer.lost - 1 :])) > bound
        assert await buffer.take() == []

    asyncio.run(check())


@given(STEPS)
def test_a_tick_looked_at_is_the_newest_of_its_kind_in_that_moment(steps: list[Any]) -> None:
    """A consumer that goes through ticks one by one, with new ones arriving in between."""

    async def consume() -> None:
        buffer = ConflatingBuffer()
        newest: dict[tuple[str, int], int] = {}
        put = seen = 0
        for step in steps:
            if isinstance(step, list):
                ticks = [tick(key, put + at) for at, key in enumerate(step, 1)]
                put += len(ticks)
                buffer.put(ticks)
                newest.update((key_of(each), each.received_ns) for each in ticks)
            elif buffer.pending:
                each = next(buffer.prefetched, None)
                if each is None:
                    await buffer.refill()
                    each = next(buffer.prefetched)
                seen += 1
                assert each.received_ns == newest[key_of(each)]
        assert seen + buffer.lost + buffer.pending == put

    asyncio.run(consume())
