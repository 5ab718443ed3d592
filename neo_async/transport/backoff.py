"""Pauses between tries: exponential, with full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable


def backoff(
    attempt: int,
    *,
    base: float,
    cap: float,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """Return the seconds to wait after `attempt` failures in a row (1 is the first).

    The result lies between 0 and `base` doubled with every failure, at most `cap`: many clients
    that lost the same server do not come back at the same moment.
    """
    return uniform(0.0, min(cap, base * 2.0 ** (min(attempt, 64) - 1)))
