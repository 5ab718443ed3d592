"""The pytest plugin: fixtures `clock`, `exchange` and `neo` for tests of programs that trade.

    async def test_my_bot(neo, exchange):
        order = await neo.orders.place("nse_cm", "ITBEES-EQ", "B", 10, price="39.35")

A test with one of them is an `async def`. Where pytest-asyncio or anyio's plugin runs it, the
fixtures live in the loop of that; otherwise it is run here, in a loop of its own whose time is
virtual: an hour takes no time. See docs/testing.md.

Until a fixture is used, nothing of the package is imported but this module.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Generator
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from neo_async.client import NeoClient
    from neo_async.exchange import Exchange
    from neo_async.testing import Clock

T = TypeVar("T")

_RUNNER = pytest.StashKey["asyncio.Runner"]()
"""Runner of a test that is run here."""
_LOOP_SCOPES = ("function", "class", "module", "package", "session")
"""Scopes that a loop of pytest-asyncio may have."""
_NO_LIMIT = 10_000
"""Calls a second: the wait for the rate limit is not what is tested."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the fixtures that run in the loops of pytest-asyncio."""
    config.addinivalue_line(
        "markers",
        "real_time(reason): run the `async def` test in real time, where neo_async runs it",
    )
    if config.pluginmanager.hasplugin("asyncio"):
        config.pluginmanager.register(_fixtures_of_pytest_asyncio(), "neo_async in pytest-asyncio")


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test that has a fixture of this plugin and that no other plugin runs."""
    runner = pyfuncitem.stash.get(_RUNNER, None)
    if runner is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    runner.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


# --- the fixtures ---------------------------------------------------------------------------------


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> Clock:
    """The time of `exchange` and `neo`: Monday 2026-11-23, 10:00 in India, when the test begins. It
    passes with the loop; `clock.advance(seconds)` and `clock.move_to(moment)` move it."""
    found: Clock = request.getfixturevalue(f"_neo_async_clock_{_driver_of(request)}")
    return found


@pytest.fixture
def exchange_options() -> dict[str, Any]:
    """Arguments of `Exchange` for the fixture `exchange`; override this fixture to set some."""
    return {}


@pytest.fixture
def neo_options() -> dict[str, Any]:
    """Arguments of `NeoClient` for the fixture `neo`; override this fixture to set some."""
    return {}


@pytest.fixture
def exchange(request: pytest.FixtureRequest, clock: Clock) -> Exchange:
    """An exchange of the test's own, with two accounts, market makers and no rate limit."""
    found: Exchange = request.getfixturevalue(f"_neo_async_exchange_{_driver_of(request)}")
    return found


@pytest.fixture
def neo(request: pytest.FixtureRequest, exchange: Exchange) -> NeoClient:
    """A client that is logged in to the first account of `exchange`, and logged out at the end."""
    found: NeoClient = request.getfixturevalue(f"_neo_async_client_{_driver_of(request)}")
    return found


async def _begun_clock() -> AsyncGenerator[Clock, None]:
    from neo_async.testing import Clock

    clock = Clock()
    clock()  # from now on, time passes
    yield clock


async def _opened_exchange(
    clock: Clock, exchange_options: dict[str, Any]
) -> AsyncGenerator[Exchange, None]:
    from neo_async.exchange import Exchange

    defaults: dict[str, Any] = {"seed": 7, "clock": clock, "limits": None}
    async with Exchange(**{**defaults, **exchange_options}) as opened:
        clock.on_move(opened.tick)
        yield opened


async def _opened_client(
    exchange: Exchange,
    clock: Clock,
    neo_options: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[NeoClient, None]:
    from neo_async import NeoClient, RateLimits

    defaults: dict[str, Any] = {
        "credentials": exchange.credentials,
        "endpoints": exchange.endpoints,
        "limits": RateLimits(orders=_NO_LIMIT, total=_NO_LIMIT),
        "instruments_directory": tmp_path_factory.mktemp("instruments"),
        "clock": clock,
    }
    async with NeoClient(**{**defaults, **neo_options}) as opened:
        yield opened


_OPENED: dict[str, Any] = {
    "clock": _begun_clock,
    "exchange": _opened_exchange,
    "client": _opened_client,
}
"""Async fixtures by the name that they have in every loop."""


# --- in whose loop --------------------------------------------------------------------------------


def _driver_of(request: pytest.FixtureRequest) -> str:
    """Return what runs the test of a fixture: anyio, pytest-asyncio (with the scope of its loop) or
    this plugin. Fails a test that nothing can run."""
    item = request.node
    if "anyio_backend" in item.fixturenames:
        backend = request.getfixturevalue("anyio_backend_name")
        if backend != "asyncio":
            pytest.fail(
                f"neo_async needs asyncio, and {item.name} runs on {backend}: let a fixture "
                "anyio_backend return 'asyncio'",
                pytrace=False,
            )
        return "anyio"
    marker = item.get_closest_marker("asyncio")
    if marker is not None and request.config.pluginmanager.hasplugin("asyncio"):
        scope = marker.kwargs.get("loop_scope")
        return f"asyncio_{scope or request.config.getini('asyncio_default_test_loop_scope')}"
    if inspect.iscoroutinefunction(item.obj):
        return "own"
    pytest.fail(
        f"the fixtures exchange, neo and clock of neo_async are for `async def` tests, and "
        f"{item.name} is none",
        pytrace=False,
    )


def _fixtures_of_pytest_asyncio() -> ModuleType:
    """Return a plugin with the fixtures in the loops of pytest-asyncio, one for each scope."""
    import pytest_asyncio

    decorated: Any = pytest_asyncio.fixture  # its types do not know a scope in a variable
    fixtures = ModuleType("neo_async fixtures in pytest-asyncio")
    for scope in _LOOP_SCOPES:
        for name, opened in _OPENED.items():
            full_name = f"_neo_async_{name}_asyncio_{scope}"
            # A function of its own for each, because the scope is kept on the function.
            copied = FunctionType(opened.__code__, opened.__globals__, full_name)
            fixture = decorated(loop_scope=scope, name=full_name)(copied)
            setattr(fixtures, full_name, fixture)
    return fixtures


_clock_in_anyio = pytest.fixture(name="_neo_async_clock_anyio")(_begun_clock)
_exchange_in_anyio = pytest.fixture(name="_neo_async_exchange_anyio")(_opened_exchange)
_client_in_anyio = pytest.fixture(name="_neo_async_client_anyio")(_opened_client)


@pytest.fixture
def _neo_async_runner(request: pytest.FixtureRequest) -> Generator[asyncio.Runner, None, None]:
    from neo_async.testing import VirtualTimeLoop

    is_real = request.node.get_closest_marker("real_time") is not None
    with asyncio.Runner(loop_factory=None if is_real else VirtualTimeLoop) as runner:
        request.node.stash[_RUNNER] = runner
        yield runner


@pytest.fixture
def _neo_async_clock_own(_neo_async_runner: asyncio.Runner) -> Generator[Clock, None, None]:
    yield from _run(_neo_async_runner, _begun_clock())


@pytest.fixture
def _neo_async_exchange_own(
    _neo_async_runner: asyncio.Runner, clock: Clock, exchange_options: dict[str, Any]
) -> Generator[Exchange, None, None]:
    yield from _run(_neo_async_runner, _opened_exchange(clock, exchange_options))


@pytest.fixture
def _neo_async_client_own(
    _neo_async_runner: asyncio.Runner,
    exchange: Exchange,
    clock: Clock,
    neo_options: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[NeoClient, None, None]:
    opened = _opened_client(exchange, clock, neo_options, tmp_path_factory)
    yield from _run(_neo_async_runner, opened)


def _run(runner: asyncio.Runner, opened: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Yield what an async fixture yields, and run the rest of it at the end."""

    async def begin() -> T:
        return await anext(opened)

    async def end() -> None:
        await anext(opened, None)

    yield runner.run(begin())
    runner.run(end())
