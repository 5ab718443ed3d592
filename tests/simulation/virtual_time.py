"""The virtual time of this suite: the loop of every `async def` test that is not `real_time`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from neo_async.testing import VirtualTimeLoop

P = ParamSpec("P")

START = 1_795_408_200.0
"""2026-11-23 10:00:00 IST, a Monday; a whole number of TOTP steps."""


def now() -> float:
    """Return the Unix seconds of the running loop: the clock for both sides of a test."""
    return START + asyncio.get_running_loop().time()


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine test in a virtual-time loop, which is the default of this suite anyway."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
