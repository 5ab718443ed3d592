"""Runs each `async def` test in a fresh virtual-time loop; tasks that it leaves running fail it.

Tests of real processes, threads or durations run in a real loop: `@pytest.mark.real_time("why")`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable
from pathlib import Path

import pytest

from tests.simulation.virtual_time import VirtualTimeLoop

# The official SDK writes a log into the working folder as soon as it is imported, unless told.
os.environ["NEO_LOG_FILE_ENABLED"] = "false"

# A shell that starts the tests in the background has SIGINT ignored, and so has every command
# that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test reads or writes the caches of this account: what one run leaves there another would find.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="neo_async-tests-")

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Specification documents and real data; tests that read it skip where it is absent."""


HELD_UP_SECONDS = 86_400.0
"""Virtual seconds within which requests end that a test's server has held up."""

WORKERS_A_CORE = 2.5
"""Many tests wait for sockets and processes in real time: more of them run than there are cores."""


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is installed
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers that `-n auto` starts."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return round(WORKERS_A_CORE * cores)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "real_time(reason): run the `async def` test in a real loop, for the reason given",
    )


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    options = parser.getgroup("neo_async", "how much is tried")
    options.addoption(
        "--seeds",
        type=int,
        default=16,
        metavar="N",
        help="programs of orders that tests/simulation runs with all faults on",
    )
    options.addoption(
        "--examples",
        type=int,
        default=60,
        metavar="N",
        help="inputs that tests/fuzz tries for each reader",
    )


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int:
    """How many inputs to try."""
    return int(request.config.getoption("--examples"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    is_real = pyfuncitem.get_closest_marker("real_time") is not None
    with asyncio.Runner(loop_factory=None if is_real else VirtualTimeLoop) as runner:
        runner.run(_run_and_check_for_leftovers(pyfuncitem.obj(**arguments)))
    return True


async def _run_and_check_for_leftovers(test: Awaitable[None]) -> None:
    await test
    # One turn of the loop, for tasks that were cancelled and not awaited yet.
    await asyncio.sleep(0)
    leftovers = asyncio.all_tasks() - {asyncio.current_task()}
    if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
        # A request that a server holds up on purpose ends in its own time, which costs none here.
        held_up = {task for task in leftovers if "RequestHandler" in repr(task.get_coro())}
        if held_up:
            await asyncio.wait(held_up, timeout=HELD_UP_SECONDS)
            leftovers = {task for task in leftovers if not task.done()}
    assert not leftovers, f"the test left tasks running: {leftovers}"
