"""Seeded programs of exit plans against an exchange with every fault on, and bots that are killed.

`python -m tests.simulation --plans N` and `--plan-kills N` run more of them.
"""

from __future__ import annotations

import asyncio
import sys

import pytest

from neo_async import NotSent, Order, OrderRequest
from neo_async.exits.requests import ExitRequests
from tests.simulation.plan_kills import STEPS, kill_at_steps
from tests.simulation.plans import run_plans

PLANS = 8


@pytest.mark.parametrize("seed", [2001, 2004])
def test_no_position_is_turned_round_bare_in_silence_or_left_by_its_plan(seed: int) -> None:
    report = run_plans(seed, PLANS)
    assert report.problems == []
    assert report.plans
    assert report.faults


def test_a_plan_that_does_not_wait_for_lost_answers_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such a plan places a second exit order beside the one whose answer was late."""
    place = ExitRequests.place

    async def impatient(self: ExitRequests, order: OrderRequest) -> Order:
        try:
            return await asyncio.wait_for(place(self, order), 1.0)
        except TimeoutError:
            raise NotSent("no answer within a second") from None

    monkeypatch.setattr(ExitRequests, "place", impatient)
    assert any(not run_plans(seed, PLANS).is_good for seed in range(2001, 2008))


@pytest.mark.real_time("kills real processes")
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
async def test_a_bot_killed_at_any_step_goes_on_with_its_plans() -> None:
    result = await kill_at_steps(1, steps=STEPS[::2])
    assert result.problems == []
    assert result.kills == 7
    assert result.plans
