from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.config import RateLimits
from neo_async.errors import Halted, RateLimited
from neo_async.transport.backoff import backoff
from neo_async.transport.daily_quota import DailyQuota
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter
from neo_async.transport.rate_pause import LONGEST_PAUSE
from neo_async.transport.start import Start
from neo_async.transport.start_window import CANCEL_WAIT, WINDOW
from neo_async.transport.turn_queue import READ_PATIENCE
from tests.simulation.virtual_time import VirtualTimeLoop
from tests.transport.lanes import starts_of

ORDERS = tuple(kind for kind in Kind if kind is not Kind.READ)


def new_limiter(orders: int = 10, total: int = 10) -> Limiter:
    loop = asyncio.get_running_loop()
    return Limiter(RateLimits(orders=orders, total=total), clock=loop.time)


def in_time(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(test)


def now() -> float:
    return asyncio.get_running_loop().time()


async def turns_of_the_loop() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def fill(limiter: Limiter) -> None:
    """Take all the room there is, at once: only cancels may."""
    for _ in range(limiter.limits.orders):
        await limiter.acquire(Kind.CANCEL)


def longest_wait(limits: RateLimits) -> float:
    """Seconds after which a single cancel starts at the latest, whatever else is sent."""
    return max(CANCEL_WAIT, WINDOW / limits.orders, WINDOW / limits.total)


def most_in_a_second(starts: list[float]) -> int:
    """The largest number of starts in any window [t, t + 1)."""
    starts = sorted(starts)
    return max(
        (sum(1 for other in starts if start <= other < start + 1.0) for start in starts),
        default=0,
    )


# --- any traffic ------------------------------------------------------------------------------


class Arrival:
    """Somebody who wants to send, and what becomes of it."""

    def __init__(
        self, at: float, kind: Kind, patience: float | None, handshake: float, fails: bool
    ) -> None:
        self.at = at
        self.kind = kind
        self.patience = patience
        """Seconds until it is cancelled, if ever."""
        self.handshake = handshake
        """Seconds between the start and the moment in which a connection is there; 0: at once."""
        self.fails = fails
        """Whether the connection fails, so that nothing is sent."""
        self.is_waiting = False
        self.sent_at: float | None = None

    def __repr__(self) -> str:
        return (
            f"Arrival({self.at}, {self.kind.name}, {self.patience}, {self.handshake}, {self.fails})"
        )


class Traffic:
    """Runs arrivals and pauses against a limiter, and watches every start."""

    def __init__(self, arrivals: list[Arrival], pauses: list[tuple[float, float]]) -> None:
        self.arrivals = arrivals
        self.pauses = pauses
        self.paused_until = 0.0

    async def run(self, limits: RateLimits) -> None:
        self.limiter = Limiter(limits, clock=asyncio.get_running_loop().time)
        tasks = [asyncio.create_task(self._live(arrival)) for arrival in self.arrivals]
        tasks += [asyncio.create_task(self._pause(at, length)) for at, length in self.pauses]
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, TimeoutError):
                raise result

    async def _live(self, arrival: Arrival) -> None:
        await asyncio.sleep(arrival.at)
        async with asyncio.timeout(arrival.patience):
            await self._send(arrival)

    async def _send(self, arrival: Arrival) -> None:
        started = await self._acquire(arrival)
        if arrival.handshake or arrival.fails:
            hand_over = self._moved if arrival.kind is Kind.READ else self._put_off
            if not await hand_over(arrival, started):
                return
        arrival.sent_at = now()
        assert now() >= self.paused_until - 1e-9, "sent during a pause"

    async def _moved(self, arrival: Arrival, started: float) -> bool:
        """As reads: the start is moved to the moment in which the connection is there."""
        limiter, kind = self.limiter, arrival.kind
        try:
            await asyncio.sleep(arrival.handshake)
        except asyncio.CancelledError:
            limiter.give_back(kind, started)
            raise
        if arrival.fails:
            limiter.give_back(kind, started)
            return False
        if limiter.restart(kind, started) is None:
            limiter.give_back(kind, started)
            await self._acquire(arrival)
        return True

    async def _put_off(self, arrival: Arrival, started: float) -> bool:
        """As orders: the start is put off until the connection is there."""
        limiter, kind = self.limiter, arrival.kind
        limiter.hold(kind, started)
        try:
            await asyncio.sleep(arrival.handshake)
        except asyncio.CancelledError:
            limiter.release(kind)
            raise
        if arrival.fails:
            limiter.release(kind)
            return False
        if limiter.start_held(kind) is None:
            await self._acquire(arrival, again=True)
        return True

    async def _acquire(self, arrival: Arrival, *, again: bool = False) -> float:
        arrival.at = now()
        arrival.is_waiting = True
        try:
            started = await self.limiter.acquire(arrival.kind, first=again)
        finally:
            arrival.is_waiting = False
        assert started == now(), "the start is the moment of the return"
        assert now() >= self.paused_until - 1e-9, "started during a pause"
        if not again:
            self._assert_nobody_was_passed(arrival)
        return started

    def _assert_nobody_was_passed(self, arrival: Arrival) -> None:
        if arrival.kind is Kind.READ:
            return  # orders may have a window of their own that is full
        for other in self.arrivals:
            if other.is_waiting and other.at < now():
                assert (other.kind, other.at) >= (arrival.kind, arrival.at), f"{other} was passed"

    async def _pause(self, at: float, length: float) -> None:
        await asyncio.sleep(at)
        pause = self.limiter.pause(length)
        self.paused_until = now() + pause


instants = st.integers(0, 30).map(lambda tenths: tenths / 10) | st.floats(0, 3, allow_nan=False)
arrivals = st.builds(
    Arrival,
    at=instants,
    kind=st.sampled_from(list(Kind)),
    patience=st.none() | st.floats(0, 2),
    handshake=st.just(0.0) | st.floats(0, 1.5),
    fails=st.integers(0, 9).map(lambda dice: dice == 0),
)
limits = st.tuples(st.integers(1, 6), st.integers(0, 6)).map(
    lambda pair: RateLimits(orders=pair[0], total=pair[0] + pair[1])
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(arrivals, max_size=50),
    st.lists(st.tuples(instants, st.floats(0.01, 1.0)), max_size=2),
    limits,
)
def test_no_window_holds_more_than_allowed_whatever_arrives(crowd, pauses, allowed):
    traffic = Traffic(crowd, pauses)
    in_time(traffic.run(allowed))  # that it ends tells that no wake-up was lost
    sent = [arrival for arrival in crowd if arrival.sent_at is not None]
    orders = [arrival.sent_at for arrival in sent if arrival.kind is not Kind.READ]
    assert most_in_a_second(orders) <= allowed.orders
    assert most_in_a_second([arrival.sent_at for arrival in sent]) <= allowed.total
    assert all(
        arrival.sent_at is not None
        for arrival in crowd
        if arrival.patience is None and not arrival.fails
    )
    assert traffic.limiter.waiting == 0
    assert traffic.limiter._turns.promised == traffic.limiter._held_ahead == [0] * len(Kind)
    assert sum(traffic.limiter.starts) == len(sent)


floods = st.lists(
    st.tuples(st.sampled_from([Kind.MODIFY, Kind.PLACE, Kind.READ]), instants), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(floods, st.floats(0, 3), limits | st.just(RateLimits()))
def test_a_cancel_starts_soon_whatever_else_is_sent(flood, at, allowed):
    async def flooded():
        limiter = Limiter(allowed, clock=asyncio.get_running_loop().time)

        async def send(kind: Kind, begin: float) -> float:
            await asyncio.sleep(begin)
            return await limiter.acquire(kind)

        others = [asyncio.create_task(send(kind, begin)) for kind, begin in flood]
        assert await send(Kind.CANCEL, at) - at <= longest_wait(allowed) + 1e-5
        await asyncio.gather(*others)

    in_time(flooded())


class Load:
    """Callers that take starts, put them off, move them and give up at any moment."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sent: list[float] = []

    async def run(self) -> Limiter:
        limiter = Limiter(RateLimits(orders=3, total=4), clock=asyncio.get_running_loop().time)
        callers = [asyncio.create_task(self._call(limiter)) for _ in range(60)]
        while not all(caller.done() for caller in callers):
            await asyncio.sleep(self.random.choice([0.0, 0.001, 0.3]))
            if self.random.random() < 0.3:
                self.random.choice(callers).cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        return limiter

    async def _call(self, limiter: Limiter) -> None:
        kind = self.random.choice(list(Kind))
        await asyncio.sleep(self.random.random() * 3)
        started: float | None = await limiter.acquire(kind)
        if kind is not Kind.READ and self.random.random() < 0.5:
            limiter.hold(kind, started)
            try:
                await asyncio.sleep(self.random.random())
            except asyncio.CancelledError:
                limiter.release(kind)
                raise
            if limiter.start_held(kind) is None:
                await limiter.acquire(kind, first=True)
        self.sent.append(now())


@pytest.mark.parametrize("seed", range(60))
def test_giving_up_at_any_moment_leaves_no_place_taken(seed):
    async def check():
        load = Load(seed)
        limiter = await load.run()
        assert most_in_a_second(load.sent) <= 4
        assert sum(limiter.starts) == len(load.sent)
        assert limiter.waiting == 0
        assert limiter._turns.promised == limiter._held_ahead == [0] * len(Kind)
        await asyncio.sleep(WINDOW)
        await fill(limiter)  # at once
        assert limiter._timer is None

    in_time(check())


# --- the rate ---------------------------------------------------------------------------------


async def test_a_burst_of_cancels_starts_at_once_when_idle():
    limiter = new_limiter(orders=10, total=25)
    await fill(limiter)
    assert now() == 0.0
    assert limiter.waits == 0
    await limiter.acquire(Kind.CANCEL)
    assert now() == pytest.approx(WINDOW)


@pytest.mark.parametrize("kind", [Kind.MODIFY, Kind.PLACE])
async def test_a_burst_of_others_leaves_the_last_start_to_a_cancel_until_the_next_is_near(kind):
    limiter = new_limiter(orders=10, total=25)
    for _ in range(9):
        await limiter.acquire(kind)
    assert now() == 0.0
    await limiter.acquire(kind)
    assert now() == pytest.approx(WINDOW - CANCEL_WAIT)
    await limiter.acquire(kind)
    assert now() == pytest.approx(WINDOW)


@pytest.mark.parametrize(("orders", "total"), [(10, 10), (10, 25), (1, 1), (3, 200)])
def test_the_rate_is_reached_when_kept_busy(orders, total):
    starts: list[float] = []

    async def caller(limiter):
        while now() < 12.0:
            await limiter.acquire(Kind.PLACE)
            starts.append(now())

    async def busy():
        limiter = new_limiter(orders, total)
        await asyncio.gather(*(caller(limiter) for _ in range(orders + 2)))

    in_time(busy())
    # Away from the first burst, too.
    for begin in (0.0, 2.0):
        assert sum(1 for start in starts if begin <= start < begin + 10.0) >= 0.98 * orders * 10
    assert most_in_a_second(starts) <= orders


async def test_orders_leave_the_rest_of_the_total_to_reads():
    limiter = new_limiter(orders=2, total=5)
    await fill(limiter)
    order = asyncio.create_task(limiter.acquire(Kind.PLACE))
    await turns_of_the_loop()
    await limiter.acquire(Kind.READ)
    await limiter.acquire(Kind.READ)
    assert now() == 0.0
    assert not order.done()
    await order
    assert now() == pytest.approx(WINDOW)


@pytest.mark.real_time("holds up the loop in real time")
async def test_a_loop_that_was_held_up_does_not_bring_starts_closer():
    # The timer fires late, on a clock that nobody can move: a turn given is not yet a start.
    limiter = Limiter(RateLimits(orders=1, total=1), window=0.02)
    starts = [await limiter.acquire(Kind.PLACE)]

    async def caller():
        starts.append(await limiter.acquire(Kind.PLACE))

    callers = asyncio.gather(caller(), caller(), caller())
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251 - holding up the loop is the point
    await callers
    assert all(later - earlier >= 0.02 for earlier, later in itertools.pairwise(starts))


# --- who is served ----------------------------------------------------------------------------


async def test_cancels_overtake_modifies_overtake_places_overtake_reads():
    limiter = new_limiter(orders=2 * len(ORDERS), total=2 * len(ORDERS))
    await fill(limiter)
    served: list[tuple[Kind, int]] = []

    async def caller(kind, number):
        await limiter.acquire(kind)
        served.append((kind, number))

    callers = [
        asyncio.create_task(caller(kind, number)) for number in range(2) for kind in reversed(Kind)
    ]
    await asyncio.gather(*callers)
    assert served[-1][0] is Kind.READ
    assert served[: 2 * len(ORDERS)] == [(kind, number) for kind in ORDERS for number in range(2)]


@pytest.mark.parametrize("kind", [Kind.MODIFY, Kind.PLACE])
async def test_a_flood_of_orders_lets_a_read_pass_now_and_then(kind):
    limiter = new_limiter()
    reads: list[float] = []
    orders: list[float] = []

    async def send_on():
        while True:
            orders.append(await limiter.acquire(kind))

    async def read(number):
        await limiter.acquire(Kind.READ)
        reads.append(now())

    flood = [asyncio.create_task(send_on()) for _ in range(20)]
    await asyncio.sleep(3)
    asked_at = now()
    async with asyncio.timeout(60):
        await asyncio.gather(*(read(number) for number in range(5)))
    lags = [after - before for before, after in itertools.pairwise([asked_at, *reads])]
    assert all(0.9 <= lag <= READ_PATIENCE + WINDOW for lag in lags)
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    assert most_in_a_second(orders + reads) <= 10
    assert len(orders) + len(reads) >= 9.7 * now()


async def test_a_steady_stream_of_reads_does_not_keep_orders_from_starting():
    limiter = new_limiter()

    async def poll(number):
        await asyncio.sleep(number / 10)
        while True:
            await limiter.acquire(Kind.READ)
            await asyncio.sleep(1.0)

    pollers = [asyncio.create_task(poll(number)) for number in range(20)]
    await asyncio.sleep(12)
    begin, reads = now(), limiter.starts[Kind.READ]
    await asyncio.gather(*(limiter.acquire(kind) for kind in (*[Kind.PLACE] * 8, Kind.MODIFY)))
    assert now() - begin < 1.2
    await asyncio.sleep(10)
    assert limiter.starts[Kind.READ] - reads > 80
    for poller in pollers:
        poller.cancel()
    await asyncio.gather(*pollers, return_exceptions=True)


async def test_not_even_a_read_that_waited_long_overtakes_a_cancel():
    limiter = new_limiter(orders=1, total=1)
    await limiter.acquire(Kind.CANCEL)
    starts = []

    async def caller(kind):
        await limiter.acquire(kind)
        starts.append(kind)

    callers = [asyncio.create_task(caller(kind)) for kind in (Kind.READ, Kind.CANCEL, Kind.CANCEL)]
    await asyncio.gather(*callers)
    assert starts == [Kind.CANCEL, Kind.CANCEL, Kind.READ]


@pytest.mark.parametrize("early", [1e-6, 0.0, -1e-6])
async def test_a_place_that_comes_just_as_room_is_free_leaves_it_to_a_read_that_waited_long(early):
    limiter = new_limiter(orders=1, total=1)
    starts = []

    async def caller(kind, wait=0.0):
        await asyncio.sleep(wait)
        await limiter.acquire(kind)
        starts.append(kind)

    await limiter.acquire(Kind.CANCEL)
    await asyncio.gather(
        caller(Kind.READ), caller(Kind.CANCEL), caller(Kind.PLACE, 2 * WINDOW - early)
    )
    assert starts == [Kind.CANCEL, Kind.READ, Kind.PLACE]


async def test_a_cancel_takes_the_room_of_a_place_that_has_not_started_yet():
    limiter = new_limiter(orders=1, total=1)
    started = await limiter.acquire(Kind.PLACE)
    place = asyncio.create_task(limiter.acquire(Kind.PLACE))
    await turns_of_the_loop()
    limiter.give_back(Kind.PLACE, started)  # the waiting place has the turn now
    await limiter.acquire(Kind.CANCEL)
    assert now() == 0.0
    assert await place == pytest.approx(WINDOW)


async def test_who_comes_just_as_turns_are_given_does_not_pass_those_who_got_one():
    limiter = new_limiter(orders=2, total=2)
    await fill(limiter)
    served = []

    async def caller(name):
        await limiter.acquire(Kind.CANCEL)
        served.append(name)

    async def late_caller():
        await asyncio.sleep(WINDOW)
        await caller("late")

    late = asyncio.create_task(late_caller())
    await turns_of_the_loop()  # its timer comes before that of the limiter
    await asyncio.gather(caller("early"), late)
    assert served == ["early", "late"]
    assert now() == pytest.approx(WINDOW)


async def test_a_cancelled_waiter_frees_its_place():
    limiter = new_limiter(orders=1, total=1)
    await limiter.acquire(Kind.PLACE)
    first, second = (asyncio.create_task(limiter.acquire(Kind.PLACE)) for _ in range(2))
    await turns_of_the_loop()
    assert limiter.waiting == 2
    first.cancel()
    assert await second == pytest.approx(WINDOW)
    assert limiter.waiting == 0


async def test_a_waiter_cancelled_just_as_its_turn_comes_hands_it_on():
    limiter = new_limiter(orders=1, total=1)
    started = await limiter.acquire(Kind.PLACE)
    first, second = (asyncio.create_task(limiter.acquire(Kind.PLACE)) for _ in range(2))
    await turns_of_the_loop()
    limiter.give_back(Kind.PLACE, started)
    first.cancel()
    await second
    assert now() == 0.0
    assert first.cancelled()


@pytest.mark.parametrize("tenths", range(30))
def test_a_cancel_waits_half_a_window_at_most_behind_any_flood_of_reads(tenths):
    async def flooded():
        limiter = new_limiter()
        flood = [asyncio.create_task(limiter.acquire(Kind.READ)) for _ in range(50)]
        await asyncio.sleep(tenths / 10)
        assert await limiter.acquire(Kind.CANCEL) - tenths / 10 <= 0.52
        await asyncio.gather(*flood)

    in_time(flooded())


async def test_reads_start_smoothly():
    limiter = new_limiter()
    starts = []
    for _ in range(40):
        await limiter.acquire(Kind.READ)
        starts.append(now())
    assert starts[:5] == [0.0] * 5
    assert starts[5] == pytest.approx(0.1)
    assert most_in_a_second(starts) <= 10
    assert starts[-1] <= 4.0


# --- undoing and moving a start ---------------------------------------------------------------


async def test_a_start_given_back_is_free_again():
    limiter = new_limiter(orders=1, total=1)
    started = await limiter.acquire(Kind.PLACE)
    waiter = asyncio.create_task(limiter.acquire(Kind.PLACE))
    await turns_of_the_loop()
    limiter.give_back(Kind.PLACE, started)
    assert await waiter == 0.0
    assert limiter.starts == starts_of(place=1)


async def test_a_start_that_is_moved_holds_its_room_from_then_on():
    limiter = new_limiter(orders=1, total=1)
    started = await limiter.acquire(Kind.PLACE)
    await asyncio.sleep(0.7)
    assert limiter.restart(Kind.PLACE, started) == 0.7
    assert await limiter.acquire(Kind.PLACE) == pytest.approx(0.7 + WINDOW)


async def test_a_start_older_than_the_window_cannot_be_moved():
    limiter = new_limiter(orders=1, total=1)
    started = await limiter.acquire(Kind.PLACE)
    await asyncio.sleep(1.2)
    assert limiter.restart(Kind.PLACE, started) is None


async def test_a_start_cannot_be_moved_once_its_room_is_free_however_times_are_rounded():
    moment = first = 0.2 + WINDOW
    limiter = Limiter(RateLimits(orders=1, total=1), clock=lambda: moment)
    assert await limiter.acquire(Kind.PLACE) == first
    moment += WINDOW
    assert moment - first < WINDOW  # by rounding
    assert await limiter.acquire(Kind.PLACE) == moment
    assert limiter.restart(Kind.PLACE, first) is None


async def test_a_start_cannot_be_moved_into_a_pause():
    limiter = new_limiter()
    started = await limiter.acquire(Kind.PLACE)
    limiter.pause(0.5)
    await asyncio.sleep(0.2)
    assert limiter.restart(Kind.PLACE, started) is None


async def test_a_start_that_is_put_off_keeps_its_room_from_placements_and_from_nothing_else():
    limiter = new_limiter(orders=10, total=10)
    for _ in range(9):
        limiter.hold(Kind.PLACE, await limiter.acquire(Kind.PLACE))
    place = asyncio.create_task(limiter.acquire(Kind.PLACE))
    await turns_of_the_loop()
    assert not place.done()
    for kind in (Kind.MODIFY, Kind.READ, Kind.CANCEL):
        assert await limiter.acquire(kind) == 0.0
    assert limiter.start_held(Kind.PLACE) == 0.0
    for _ in range(8):
        limiter.release(Kind.PLACE)
    await place
    assert now() == 0.0
    assert limiter.starts == starts_of(cancel=1, modify=1, place=2, read=1)


async def test_a_start_that_was_put_off_and_lost_its_room_is_the_first_of_its_kind_again():
    limiter = new_limiter(orders=1, total=1)
    limiter.hold(Kind.PLACE, await limiter.acquire(Kind.PLACE))
    served: list[str] = []

    async def caller(name: str, *, first: bool = False) -> None:
        await limiter.acquire(Kind.PLACE, first=first)
        served.append(name)

    later = asyncio.create_task(caller("later"))
    await turns_of_the_loop()
    await limiter.acquire(Kind.CANCEL)
    assert limiter.start_held(Kind.PLACE) is None
    await asyncio.gather(later, caller("put off", first=True))
    assert served == ["put off", "later"]


async def test_what_may_have_arrived_as_late_as_its_answer_counts_from_then_on():
    limiter = new_limiter(orders=1, total=1)
    started = await limiter.acquire(Kind.PLACE)
    await asyncio.sleep(0.4)
    limiter.answered_late(Kind.PLACE, started)
    assert limiter.starts == starts_of(place=1)
    later = await limiter.acquire(Kind.PLACE)
    assert later == pytest.approx(0.4 + WINDOW)
    await asyncio.sleep(5)
    limiter.answered_late(Kind.PLACE, later)
    assert await limiter.acquire(Kind.CANCEL) == now()


async def test_a_start_is_moved_once_and_taken_anew_for_each_further_connection():
    limiter = new_limiter(orders=2, total=2)
    start = await Start(limiter, Kind.CANCEL).take()
    await asyncio.sleep(0.5)
    await start.at_connection()
    assert limiter.starts == starts_of(cancel=1)
    await start.at_connection()
    assert limiter.starts == starts_of(cancel=2)
    assert now() == 0.5
    late = await Start(limiter, Kind.CANCEL).take()
    assert now() == pytest.approx(0.5 + WINDOW)
    await asyncio.sleep(2 * WINDOW)
    await late.at_connection()  # too old to be moved
    assert limiter.starts == starts_of(cancel=3)
    assert repr(limiter).startswith("<Limiter 1/2 in the window")


# --- cost -------------------------------------------------------------------------------------


@pytest.mark.real_time("measures a real duration")
async def test_no_cost_grows_with_the_starts_of_the_past_or_with_those_that_wait():
    limiter = Limiter(RateLimits(orders=1_000_000, total=1_000_000))

    async def seconds(count: int) -> float:
        """Of so many starts given back, and as many that queued and gave up or started."""
        began = time.perf_counter()
        for _ in range(count):
            limiter.give_back(Kind.PLACE, await limiter.acquire(Kind.PLACE))
        pause = 0.05
        limiter.pause(pause)
        waiting = [asyncio.create_task(limiter.acquire(Kind.PLACE)) for _ in range(2 * count)]
        await asyncio.sleep(0)
        for caller in waiting[::2]:
            caller.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return time.perf_counter() - began - pause

    async def least_seconds() -> float:
        """Others share this machine."""
        return min([await seconds(2_000) for _ in range(4)])

    few = await least_seconds()
    for _ in range(200_000):
        await limiter.acquire(Kind.PLACE)
    assert await least_seconds() < 4 * few + 0.05
    assert len(limiter._total.starts) <= 220_000
    await asyncio.sleep(WINDOW)
    assert await least_seconds() < 4 * few + 0.05


# --- pauses -----------------------------------------------------------------------------------


def starts_after(limiter: Limiter) -> list[float]:
    """Seconds until a start of each kind is possible."""
    return [max(0.0, limiter._paused_until[kind] - now()) for kind in Kind]


@pytest.mark.parametrize("asked", [1.0, 30.0, 86_394.0, 1e18, math.inf])
async def test_a_pause_is_bounded_and_above_all_for_those_that_did_not_earn_it(asked):
    bounded = min(asked, LONGEST_PAUSE)
    window = min(asked, WINDOW)
    for kind, expected in (
        (Kind.READ, [0.0, *[window] * (len(ORDERS) - 1), bounded]),
        *((kind, [window, *[bounded] * len(ORDERS)]) for kind in ORDERS),
        (None, [bounded] * len(Kind)),
    ):
        limiter = new_limiter()
        own = expected[Kind.PLACE if kind is None else kind]
        assert limiter.pause(asked, kind) == pytest.approx(own)
        assert starts_after(limiter) == pytest.approx(expected)
        assert limiter.paused_for == pytest.approx(bounded)


async def test_a_second_429_does_not_keep_cancels_longer_than_the_first():
    """Answers are slow: it is about a request from before the pause as well."""
    limiter, began = new_limiter(), now()
    limiter.pause(1.0, Kind.PLACE)
    cancelling = asyncio.create_task(limiter.acquire(Kind.CANCEL))
    for _ in range(3):
        await asyncio.sleep(0.3)
        limiter.pause(1.0, Kind.MODIFY)
    await cancelling
    assert now() - began == pytest.approx(1.0, abs=0.01)
    limiter.pause(1.0, Kind.CANCEL)  # the cancel met with one itself
    assert starts_after(limiter)[Kind.CANCEL] == pytest.approx(1.0)


@pytest.mark.parametrize("asked", [None, 0.0, -5.0, math.nan])
async def test_a_pause_of_no_length_that_can_be_is_one_of_ours(asked):
    limiter = new_limiter()
    for _ in range(20):
        assert 0.0 <= limiter.pause(asked, Kind.PLACE) <= 30.0
        await asyncio.sleep(limiter.paused_for)
    assert await limiter.acquire(Kind.PLACE) == now()


async def test_a_pause_longer_than_a_call_may_wait_ends_it_at_once_and_says_for_how_long():
    limiter = new_limiter(orders=1, total=1)
    limiter.patience = (*[10.0] * len(ORDERS), 15.0)
    await fill(limiter)
    waiting = [asyncio.create_task(limiter.acquire(kind)) for kind in Kind]
    await turns_of_the_loop()
    limiter.pause(40.0, Kind.PLACE)
    results = await asyncio.gather(*waiting[1:], return_exceptions=True)
    assert now() == 0.0
    for result in (*results, await caught(limiter.acquire(Kind.MODIFY))):
        assert isinstance(result, RateLimited)
        assert "starts for another 40.0 s" in str(result)
        assert "nothing was sent" in str(result)
        assert result.retry_after == 40.0
        assert (result.was_sent, result.status) == (False, None)
    assert await waiting[0] == pytest.approx(WINDOW)
    assert limiter.waiting == 0
    await asyncio.sleep(31.0)
    assert await limiter.acquire(Kind.PLACE) == pytest.approx(40.0)  # it may wait for the rest


async def caught(call: Coroutine[Any, Any, float]) -> BaseException:
    with pytest.raises(RateLimited) as caught:
        await call
    return caught.value


async def test_a_long_queue_is_no_reason_to_fail():
    limiter = new_limiter()
    limiter.patience = (1.0,) * len(Kind)
    await asyncio.gather(*(limiter.acquire(Kind.PLACE) for _ in range(300)))
    assert 29 <= now() <= 31
    limiter.pause(0.9, Kind.PLACE)
    await asyncio.gather(*(limiter.acquire(Kind.PLACE) for _ in range(30)))


async def test_a_pause_that_a_read_has_earned_is_told_with_what_it_leaves_free(caplog):
    new_limiter().pause(30.0, Kind.READ)
    assert caplog.messages == [
        "rate limit hit (429): cancels, other orders and reads start again in "
        "0.00, 1.01 and 30.00 s"
    ]


async def test_nothing_starts_during_a_pause():
    limiter = new_limiter()
    waiting = asyncio.create_task(limiter.acquire(Kind.CANCEL))
    await waiting
    assert limiter.pause(2.0) == 2.0
    assert await limiter.acquire(Kind.CANCEL) == pytest.approx(2.0)


async def test_a_shorter_pause_does_not_end_a_longer_one():
    limiter = new_limiter()
    limiter.pause(2.0)
    assert limiter.pause(0.5) == 2.0
    assert await limiter.acquire(Kind.PLACE) == pytest.approx(2.0)


async def test_a_pause_catches_those_that_wait_already():
    limiter = new_limiter(orders=1, total=1)
    await limiter.acquire(Kind.PLACE)
    waiter = asyncio.create_task(limiter.acquire(Kind.PLACE))
    await asyncio.sleep(0.5)
    limiter.pause(3.0)
    assert await waiter == pytest.approx(3.5)


@pytest.fixture
def longest_draw(monkeypatch):
    """Takes the chance out of the backoff: it always draws the longest wait."""
    monkeypatch.setattr(backoff, "__kwdefaults__", {"uniform": lambda _low, high: high})


@pytest.mark.usefixtures("longest_draw")
async def test_pauses_without_a_length_grow_until_something_succeeds():
    limiter = new_limiter()
    lengths = []
    for _ in range(3):
        lengths.append(limiter.pause(None))
        await asyncio.sleep(lengths[-1])
    assert lengths == [0.5, 1.0, 2.0]
    limiter.succeeded()
    assert limiter.pause(None) == 0.5


@pytest.mark.usefixtures("longest_draw")
async def test_the_refusals_of_one_burst_count_as_one():
    limiter = new_limiter()
    assert [limiter.pause(None) for _ in range(10)] == [0.5] * 10


async def test_the_refusals_of_one_burst_are_told_once(caplog):
    limiter = new_limiter()
    for _ in range(10):
        limiter.pause(1.0)
    assert caplog.messages == ["rate limit hit (429): nothing starts for 1.00 s"]
    await asyncio.sleep(1.0)
    limiter.pause(2.0)
    assert caplog.messages[1:] == ["rate limit hit (429): nothing starts for 2.00 s"]


@pytest.mark.usefixtures("longest_draw")
async def test_a_server_that_asks_for_no_pause_at_all_gets_one():
    limiter = new_limiter()
    assert limiter.pause(0.0) == 0.5


# --- refusals ---------------------------------------------------------------------------------


HALTED = Halted("closed", since=0.0)


async def test_what_is_refused_ends_waiting_at_once_and_frees_its_place():
    limiter = new_limiter(orders=2, total=2)
    await fill(limiter)
    refused = [asyncio.create_task(limiter.acquire(Kind.PLACE)) for _ in range(3)]
    cancel = asyncio.create_task(limiter.acquire(Kind.CANCEL))
    await turns_of_the_loop()
    limiter.state.halt(HALTED)
    results = await asyncio.gather(*refused, return_exceptions=True)
    assert [type(result) for result in results] == [Halted] * 3
    assert now() == 0.0
    assert await cancel == pytest.approx(WINDOW)
    with pytest.raises(Halted):
        await limiter.acquire(Kind.PLACE)
    assert limiter.starts == starts_of(cancel=3)
    limiter.state.activate()
    await asyncio.sleep(WINDOW)
    assert await limiter.acquire(Kind.PLACE) == now()


async def test_a_refusal_reaches_those_who_have_their_turn_and_have_not_taken_it():
    limiter = new_limiter(orders=1, total=1)
    await fill(limiter)
    waiting = asyncio.create_task(limiter.acquire(Kind.PLACE))
    await turns_of_the_loop()
    asyncio.get_running_loop().call_later(WINDOW, limiter.state.halt, HALTED)
    with pytest.raises(Halted):
        await waiting


async def test_a_start_is_not_moved_when_its_kind_is_refused_meanwhile():
    limiter = new_limiter()
    started = await limiter.acquire(Kind.PLACE)
    limiter.state.halt(HALTED)
    with pytest.raises(Halted):
        limiter.restart(Kind.PLACE, started)
    assert limiter.state.refusal(Kind.CANCEL) is None


# --- what it tells ----------------------------------------------------------------------------


async def test_counters_and_repr_tell_the_state():
    limiter = new_limiter(orders=2, total=3)
    assert repr(limiter) == "<Limiter 0/3 in the window, 0 waiting>"
    await limiter.acquire(Kind.PLACE)
    await limiter.acquire(Kind.CANCEL)
    waiter = asyncio.create_task(limiter.acquire(Kind.PLACE))
    await turns_of_the_loop()
    assert repr(limiter) == "<Limiter 2/3 in the window, 1 waiting>"
    limiter.pause(4.0)
    assert repr(limiter) == "<Limiter 2/3 in the window, 1 waiting, paused 4.0 s>"
    assert (limiter.starts, limiter.waits, limiter.pauses) == (starts_of(cancel=1, place=1), 1, 1)
    await waiter
    assert limiter.starts == starts_of(cancel=1, place=2)


async def test_a_free_limiter_costs_no_turn_of_the_loop():
    limiter = new_limiter()
    passed = limiter.acquire(Kind.PLACE)
    with pytest.raises(StopIteration):
        passed.send(None)


# --- the day ----------------------------------------------------------------------------------


async def test_a_day_holds_no_more_than_its_quota_and_the_next_one_begins_in_india():
    now_ = 1_795_458_000.0  # 2026-11-23 23:50 IST
    quota = DailyQuota(2, clock=lambda: now_)
    limiter = Limiter(RateLimits(), clock=asyncio.get_running_loop().time, quota=quota)
    await limiter.acquire(Kind.PLACE)
    started = await limiter.acquire(Kind.READ)
    limiter.give_back(Kind.READ, started)
    await limiter.acquire(Kind.READ)
    with pytest.raises(RateLimited, match="2 requests of today are used up") as caught:
        await limiter.acquire(Kind.CANCEL)
    assert caught.value.retry_after == 600.0
    now_ += 600.0
    await limiter.acquire(Kind.CANCEL)
    assert quota.used == 1


async def test_those_who_queue_when_the_quota_ends_are_told():
    quota = DailyQuota(3, clock=lambda: 0.0)
    limiter = Limiter(
        RateLimits(orders=2, total=2), clock=asyncio.get_running_loop().time, quota=quota
    )
    results = await asyncio.gather(
        *(limiter.acquire(Kind.PLACE) for _ in range(6)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, RateLimited)]
    assert len(refused) == 3
    assert limiter.waiting == 0
