"""Durations: a number of seconds, or a distribution to draw them from."""

from __future__ import annotations

import math
from random import Random

import msgspec

from neo_async.errors import UsageError


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_number(name: str, value: object) -> None:
    if not (is_number(value) and 0 <= value < math.inf):  # type: ignore[operator]
        raise UsageError(f"{name}={value!r}: must be seconds, 0 or more")


class _Distribution(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="kind",
    tag=str.lower,
    forbid_unknown_fields=True,
):
    """Written as JSON with the lower-case name of its class as `kind`."""


class Uniform(_Distribution, frozen=True):
    """Seconds between two bounds, all equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_number("low", self.low)
        _check_number("high", self.high)
        if self.high < self.low:
            raise UsageError(f"low={self.low}, high={self.high}: low must not be above high")

    def draw(self, random: Random) -> float:
        return random.uniform(self.low, self.high)


class Exponential(_Distribution, frozen=True):
    """Seconds that are mostly short: about two in three stay below the mean."""

    mean: float

    def __post_init__(self) -> None:
        _check_number("mean", self.mean)

    def draw(self, random: Random) -> float:
        return random.expovariate(1 / self.mean) if self.mean else 0.0


class LogNormal(_Distribution, frozen=True):
    """Seconds with a long tail, as answers of busy servers have them; half are below the median,
    and one in six above it `e ** sigma` times."""

    median: float
    sigma: float = 1.0

    def __post_init__(self) -> None:
        _check_number("median", self.median)
        _check_number("sigma", self.sigma)

    def draw(self, random: Random) -> float:
        return self.median * math.exp(random.gauss(0, self.sigma))


Seconds = float | Uniform | Exponential | LogNormal
"""A number that is always the same, or a distribution to draw it from."""


def draw(seconds: Seconds, random: Random) -> float:
    return seconds if isinstance(seconds, float | int) else seconds.draw(random)


def check_seconds(name: str, value: Seconds) -> None:
    """Raise UsageError when a value is neither seconds nor a distribution of them."""
    if not isinstance(value, Uniform | Exponential | LogNormal):
        _check_number(name, value)
