"""The rules of the connection pool, for every combination of counts."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.config import PoolLimits
from neo_async.transport.kinds import Kind
from neo_async.transport.pool_planner import PoolPlanner

OTHERS = [Kind.MODIFY, Kind.PLACE]


@st.composite
def limits(draw: st.DrawFn) -> PoolLimits:
    maximum = draw(st.integers(1, 8))
    return PoolLimits(
        warm=draw(st.integers(1, maximum)),
        maximum=maximum,
        reserved=draw(st.integers(0, 4)),
        for_cancels=draw(st.integers(0, 6)),
    )


class Counts(NamedTuple):
    idle: int
    busy: int
    connecting: int
    cancels: int
    others: int

    @property
    def size(self) -> int:
        return self.idle + self.busy + self.connecting

    @property
    def ready(self) -> int:
        return self.idle + self.connecting


counts = st.builds(Counts, *(st.integers(0, 14) for _ in Counts._fields))


def missing(planner: PoolPlanner, at: Counts) -> int:
    return planner.missing(
        idle=at.idle,
        open_=at.idle + at.busy,
        connecting=at.connecting,
        cancels=at.cancels,
        others=at.others,
    )


def may_take(planner: PoolPlanner, kind: Kind, at: Counts) -> bool:
    return planner.may_take(kind, at.idle, at.idle + at.busy)


def is_warm(planner: PoolPlanner, at: Counts) -> bool:
    return planner.is_warm(idle=at.idle, open_=at.idle + at.busy, connecting=at.connecting)


# --- who may take -----------------------------------------------------------------------------


@given(limits(), counts)
def test_cancels_may_take_every_idle_connection(pool: PoolLimits, at: Counts) -> None:
    assert may_take(PoolPlanner(pool), Kind.CANCEL, at) == (at.idle > 0)


@given(limits(), counts, st.sampled_from(OTHERS))
def test_others_use_no_more_than_the_maximum_and_leave_some_to_cancels(
    pool: PoolLimits, at: Counts, kind: Kind
) -> None:
    planner = PoolPlanner(pool)
    left = min(pool.reserved, pool.warm - 1)
    assert planner.idle_for_cancels == left
    assert may_take(planner, kind, at) == (at.idle > left and at.busy < pool.maximum)


# --- how many are opened ----------------------------------------------------------------------


@given(limits(), counts)
def test_the_limits_are_kept(pool: PoolLimits, at: Counts) -> None:
    opened = missing(PoolPlanner(pool), at)
    most = pool.maximum + pool.reserved + (pool.for_cancels if at.cancels else 0)
    assert opened >= 0
    assert opened == 0 or at.size + opened <= most


@given(limits(), counts)
def test_nothing_is_opened_while_nothing_waits(pool: PoolLimits, at: Counts) -> None:
    assert missing(PoolPlanner(pool), at._replace(cancels=0, others=0)) == 0


@given(limits(), counts)
def test_nothing_is_missing_where_nothing_may_be_opened(pool: PoolLimits, at: Counts) -> None:
    planner = PoolPlanner(pool)
    is_possible = planner.may_open(at.idle + at.busy, at.connecting, at.cancels)
    assert is_possible or missing(planner, at) == 0


@given(limits(), counts)
def test_no_more_are_opened_than_wait_and_are_left_to_cancels(pool: PoolLimits, at: Counts) -> None:
    planner = PoolPlanner(pool)
    assert missing(planner, at) <= max(
        0, at.cancels + at.others + planner.idle_for_cancels - at.ready
    )


@given(limits(), counts)
def test_every_cancel_gets_a_connection_within_the_limit(pool: PoolLimits, at: Counts) -> None:
    ready = at.ready + missing(PoolPlanner(pool), at)
    most = pool.maximum + pool.reserved + pool.for_cancels
    assert ready >= min(at.cancels, at.ready + max(0, most - at.size))


@given(limits(), counts)
def test_placements_open_no_connection_beyond_the_maximum_and_those_left_to_cancels(
    pool: PoolLimits, at: Counts
) -> None:
    planner = PoolPlanner(pool)
    opened = missing(planner, at._replace(cancels=0))
    assert opened == 0 or at.size + opened <= pool.maximum + planner.idle_for_cancels


@given(limits(), counts)
def test_a_placement_that_waits_below_the_maximum_is_never_left_without_a_connection(
    pool: PoolLimits, at: Counts
) -> None:
    planner = PoolPlanner(pool)
    at = at._replace(connecting=0, cancels=0, others=max(1, at.others))
    if at.busy < pool.maximum and not may_take(planner, Kind.PLACE, at):
        assert missing(planner, at) > 0


@given(limits(), counts)
def test_once_they_are_opened_nothing_more_is_missing(pool: PoolLimits, at: Counts) -> None:
    planner = PoolPlanner(pool)
    opened = missing(planner, at)
    assert missing(planner, at._replace(connecting=at.connecting + opened)) == 0


@given(limits(), st.lists(st.sampled_from(list(Kind)[:3]), max_size=30))
def test_requests_that_hang_are_served_as_far_as_the_limits_go(
    pool: PoolLimits, kinds: list[Kind]
) -> None:
    """A whole life without I/O: requests come, connections are opened, nothing is ever answered."""
    planner = PoolPlanner(pool)
    idle, busy = pool.warm, 0
    waiting = {Kind.CANCEL: 0, Kind.PLACE: 0}
    served = {Kind.CANCEL: 0, Kind.PLACE: 0}
    for each in kinds:
        waiting[Kind.CANCEL if each is Kind.CANCEL else Kind.PLACE] += 1
        idle += missing(planner, Counts(idle, busy, 0, waiting[Kind.CANCEL], waiting[Kind.PLACE]))
        for kind in waiting:
            while waiting[kind] and planner.may_take(kind, idle, idle + busy):
                idle, busy = idle - 1, busy + 1
                waiting[kind] -= 1
                served[kind] += 1
    cancels = sum(kind is Kind.CANCEL for kind in kinds)
    assert served[Kind.PLACE] <= pool.maximum
    assert idle + busy <= pool.maximum + pool.reserved + pool.for_cancels
    assert not waiting[Kind.CANCEL] or idle + busy == (
        pool.maximum + pool.reserved + pool.for_cancels
    )
    if not cancels:
        assert served[Kind.PLACE] == min(len(kinds), pool.maximum)


# --- warm -------------------------------------------------------------------------------------


@given(limits(), counts)
def test_a_pool_is_warm_with_the_warm_connections_and_those_left_to_cancels(
    pool: PoolLimits, at: Counts
) -> None:
    planner = PoolPlanner(pool)
    has_idle = at.ready >= planner.idle_for_cancels or at.size >= pool.maximum + pool.reserved
    assert is_warm(planner, at) == (at.size >= pool.warm and has_idle)


@pytest.mark.parametrize(
    ("at", "opened"),
    [
        (Counts(idle=2, busy=0, connecting=0, cancels=0, others=1), 0),
        (Counts(idle=1, busy=1, connecting=0, cancels=0, others=1), 1),
        (Counts(idle=1, busy=31, connecting=0, cancels=0, others=9), 1),
        (Counts(idle=1, busy=32, connecting=0, cancels=0, others=9), 0),
        (Counts(idle=0, busy=34, connecting=0, cancels=3, others=0), 3),
        (Counts(idle=0, busy=130, connecting=0, cancels=3, others=0), 0),
        (Counts(idle=0, busy=2, connecting=1, cancels=0, others=4), 4),
    ],
)
def test_what_the_default_limits_lead_to(at: Counts, opened: int) -> None:
    assert missing(PoolPlanner(PoolLimits()), at) == opened
