"""Seeded programs of orders against an exchange with every fault on.

`python -m tests.simulation` runs more seeds, and kills and outages beside them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from neo_async.exchange.faults.settings import PROBABILITIES
from neo_async.execution.in_flight import InFlightOrders
from neo_async.execution.late_orders import LateOrders
from tests.simulation.programs import ALL_FAULTS, run_program

ORDERS = 60


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "program_seed" in metafunc.fixturenames:
        seeds = range(1001, 1001 + metafunc.config.getoption("--seeds"))
        metafunc.parametrize("program_seed", seeds)


def test_no_order_is_doubled_lost_unknown_or_open_after_a_halt(program_seed: int) -> None:
    """The programs include halts, nights, and callers that are cancelled at any await."""
    report = run_program(program_seed, ORDERS)
    assert report.problems == []
    assert report.overdue == 0
    assert report.accepted
    assert sum(report.faults.values()) > ORDERS


def test_a_seed_takes_the_same_course_every_time() -> None:
    first, second = run_program(7, 10), run_program(7, 10)
    assert first.outcomes == second.outcomes
    assert first.faults == second.faults


def test_a_story_names_every_request_with_its_faults() -> None:
    story: list[str] = []
    report = run_program(8, 5, story=story.append)
    assert report.problems == []
    text = "\n".join(story)
    assert text.count("/quick/order/rule/ms/place") >= 2 * 5
    assert "meets" in text
    assert "order 0: place" in text


def test_every_fault_is_on() -> None:
    off = [name for name in PROBABILITIES if not getattr(ALL_FAULTS, name)]
    assert [name for name in off if not name.startswith("bank_")] == []


def test_a_client_without_a_resolution_timeout_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a client reports late orders as not accepted, as soon as the first book lacks them."""
    opened = InFlightOrders.open

    def impatient(self: InFlightOrders, *arguments: Any, **settings: Any) -> Any:
        pending = opened(self, *arguments, **settings)
        pending.deadline = asyncio.get_running_loop().time()
        return pending

    monkeypatch.setattr(InFlightOrders, "open", impatient)
    monkeypatch.setattr(LateOrders, "apply", lambda *_: None)
    assert any(run_program(seed, ORDERS).wrong for seed in range(1001, 1021))
