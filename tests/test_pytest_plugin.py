"""The pytest plugin, as the tests of somebody else's bot use it: in processes of their own."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = "neo_async.pytest_plugin.fixtures"

BOT_TESTS = """
import asyncio

import pytest

from neo_async import OrderStatus, Product, Segment, Side

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)


async def test_an_order_is_filled(neo, exchange, clock):
    order = await neo.orders.place(*BUY, price="41", product=Product.CNC)
    await order.wait(OrderStatus.COMPLETE, timeout=5)
    assert [record.number for record in exchange.market.ledger] == [order.number]


@pytest.mark.parametrize("number", range(3))
async def test_every_test_has_an_exchange_of_its_own(neo, exchange, number):
    assert await neo.orders.book() == []
    await neo.orders.place(*BUY, price="39", product=Product.CNC)
    assert len(exchange.market.ledger) == 1


async def test_the_clock_moves_both(neo, exchange, clock):
    assert clock.now.isoformat().startswith("2026-11-23T10:00:0")
    waiting = asyncio.create_task(neo.calendar.until("15:15"))
    await asyncio.sleep(0.05)
    clock.move_to(clock.now.replace(hour=15, minute=15))
    await asyncio.wait_for(waiting, 1.5)
    assert str(exchange.market.today) == "2026-11-23"
    clock.advance(86_400)
    assert str(exchange.market.today) == "2026-11-24"


async def test_the_clock_alone(clock):
    await asyncio.sleep(0.05)
    assert 0.04 < clock() - 1_795_408_200 < 5
"""


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run the tests in a process, with the plugin as an installation has it."""
    is_installed = any(each.value == PLUGIN for each in entry_points(group="pytest11"))
    plugin = () if is_installed else ("-p", PLUGIN)
    return pytester.runpytest_subprocess(*plugin, "-p", "no:cacheprovider", *options)


def test_an_installation_has_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"neo_async": PLUGIN}


def test_without_another_plugin_tests_run_in_virtual_time(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        BOT_TESTS
        + """

async def test_a_minute_takes_no_minute(neo, clock):
    await asyncio.sleep(60)
    assert 59.9 < clock() - 1_795_408_200 < 61
    assert type(asyncio.get_running_loop()).__name__ == "VirtualTimeLoop"


@pytest.mark.real_time("it says so")
async def test_real_time(neo):
    assert type(asyncio.get_running_loop()).__name__ != "VirtualTimeLoop"
"""
    )
    run(pytester, "-p", "no:asyncio", "-p", "no:anyio", "--strict-markers").assert_outcomes(
        passed=8
    )


def test_anyio_runs_the_tests(pytester: pytest.Pytester) -> None:
    pytest.importorskip("anyio")
    backend = """
@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
    pytester.makepyfile(BOT_TESTS + "\n\npytestmark = pytest.mark.anyio\n\n" + backend)
    run(pytester, "-p", "no:asyncio").assert_outcomes(passed=6)


def test_anyio_on_trio_is_told_what_is_missing(pytester: pytest.Pytester) -> None:
    pytest.importorskip("anyio")
    pytester.makepyfile(
        """
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio"])
def anyio_backend(request):
    return request.param


async def test_it(clock): ...
"""
    )
    result = run(pytester, "-p", "no:asyncio")
    result.stdout.fnmatch_lines(["*neo_async needs asyncio, and test_it* runs on trio: let a*"])


@pytest.mark.parametrize("mode", ["auto", "strict"])
@pytest.mark.parametrize("scope", ["function", "module", "session"])
def test_pytest_asyncio_runs_the_tests(pytester: pytest.Pytester, mode: str, scope: str) -> None:
    pytest.importorskip("pytest_asyncio")
    pytester.makeini(
        f"""
        [pytest]
        asyncio_mode = {mode}
        asyncio_default_test_loop_scope = {scope}
        asyncio_default_fixture_loop_scope = function
        """
    )
    mark = "\n\npytestmark = pytest.mark.asyncio\n" if mode == "strict" else ""
    pytester.makepyfile(BOT_TESTS + mark)
    run(pytester).assert_outcomes(passed=6)


def test_settings_come_from_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest

from neo_async import OrderStatus, Product, RiskLimits, Segment, Side, SegmentNotAllowed
from neo_async.exchange import Behaviour, Hours, Rules


@pytest.fixture
def exchange_options():
    return {"seed": 3, "behaviour": Behaviour(rules=Rules(hours=Hours.EXCHANGE))}


@pytest.fixture
def neo_options():
    return {"risk": RiskLimits(segments={Segment.NSE_FO})}


async def test_it(neo, exchange):
    assert "seed 3" in repr(exchange)
    with pytest.raises(SegmentNotAllowed):
        await neo.orders.place(
            Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, price="39", product=Product.CNC
        )
"""
    )
    run(pytester, "-p", "no:asyncio").assert_outcomes(passed=1)


def test_a_test_that_is_no_coroutine_is_told_so(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(neo): ...")
    result = run(pytester, "-p", "no:asyncio")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["the fixtures exchange, neo and clock of neo_async are for `async def` tests*"]
    )


def test_other_tests_are_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
import pytest


@pytest.fixture
def clock():
    return "mine"
"""
    )
    pytester.makepyfile("def test_it(clock):\n    assert clock == 'mine'")
    run(pytester).assert_outcomes(passed=1)


def test_the_plugin_costs_nothing_until_it_is_used(pytester: pytest.Pytester) -> None:
    code = f"""
import sys, pytest, {PLUGIN}
heavy = {{"aiohttp", "msgspec", "neo_async.client", "neo_async.exchange", "neo_async.testing"}}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    assert pytester.run(sys.executable, "-c", code).ret == 0


def test_the_example_passes(pytester: pytest.Pytester) -> None:
    example = ROOT / "examples" / "test_my_bot.py"
    pytester.makepyfile(test_my_bot=example.read_text(encoding="utf-8"))
    result = run(pytester, "-p", "no:asyncio")
    assert result.parseoutcomes().keys() == {"passed"}
