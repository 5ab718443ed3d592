"""Seeded programs of orders on the exchange's worst day, and what is said of them afterwards.

The whole of it, with more seeds, kills and outages, is `python -m tests.simulation`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from neo_async.exchange.faults.settings import PROBABILITIES
from neo_async.execution.in_flight import InFlightOrders
from tests.simulation.programs import WORST_DAY, run_program

ORDERS = 60


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "program_seed" in metafunc.fixturenames:
        seeds = range(1001, 1001 + metafunc.config.getoption("--seeds"))
        metafunc.parametrize("program_seed", seeds)


def test_no_order_is_doubled_lost_unknown_or_open_after_a_halt(program_seed: int) -> None:
    """Halts, nights and callers that are cancelled at any await included; see the programs."""
    report = run_program(program_seed, ORDERS)
    assert report.problems == []
    assert report.overdue == 0
    assert report.accepted
    assert sum(report.faults.values()) > ORDERS


def test_a_seed_takes_the_same_course_every_time() -> None:
    first, second = run_program(7, 10), run_program(7, 10)
    assert first.told == second.told
    assert first.faults == second.faults


def test_a_story_names_every_request_and_what_it_meets() -> None:
    story: list[str] = []
    report = run_program(8, 5, story=story.append)
    assert report.problems == []
    text = "\n".join(story)
    assert text.count("/quick/order/rule/ms/place") >= 2 * 5
    assert "meets" in text
    assert "life 0: place" in text


def test_every_fault_is_on() -> None:
    off = [name for name in PROBABILITIES if not getattr(WORST_DAY, name)]
    assert [name for name in off if not name.startswith("bank_")] == []


def test_a_client_that_believes_the_first_book_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the programs are for: without the horizon, late orders are called not accepted."""
    opened = InFlightOrders.open

    def impatient(self: InFlightOrders, *arguments: Any, **settings: Any) -> Any:
        pending = opened(self, *arguments, **settings)
        pending.proof_at = asyncio.get_running_loop().time()
        return pending

    monkeypatch.setattr(InFlightOrders, "open", impatient)
    monkeypatch.setattr(InFlightOrders, "_admit", lambda *_: None)
    assert any(run_program(seed, ORDERS).wrong for seed in range(1001, 1021))
