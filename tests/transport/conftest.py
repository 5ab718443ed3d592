"""Runs a test on asyncio's own loop and on uvloop where it asks for `loop_factory`."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from tests.conftest import _run_and_check_for_leftovers

try:
    import uvloop

    FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
except ImportError:  # Windows
    FACTORIES = {"asyncio": asyncio.new_event_loop}


@pytest.fixture(params=FACTORIES)
def loop_factory(request: pytest.FixtureRequest) -> Any:
    return FACTORIES[request.param]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    factory = pyfuncitem.funcargs.get("loop_factory")
    if factory is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_run_and_check_for_leftovers(pyfuncitem.obj(**arguments)))
    return True
