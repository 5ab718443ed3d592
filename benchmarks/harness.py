"""What the benchmarks share: cores, alternating rounds, centre and spread, wanted figures, tables.

It measures nothing itself and knows no peer.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def cores() -> tuple[int | None, int | None]:
    """The core for the far end and the core for whoever is measured: two different ones.

    (None, None) where a process cannot be pinned, or has one core only.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def pin(core: int | None) -> None:
    """Keep this process, with all threads it will start, on one core. None leaves it free."""
    if core is not None:
        os.sched_setaffinity(0, {core})


class Figure(msgspec.Struct, frozen=True):
    """Centre and spread of one figure over the rounds."""

    median: float
    low: float
    high: float
    rounds: int


def summarise(values: Iterable[float]) -> Figure:
    """Median, lowest and highest of one value a round."""
    ordered = sorted(values)
    return Figure(statistics.median(ordered), ordered[0], ordered[-1], len(ordered))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the sorted values lie, by nearest rank."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def alternate(
    names: Sequence[str], measure: Callable[[str], T], *, rounds: int, warm_up: int = 1
) -> dict[str, list[T]]:
    """Measure A B C … A B C …, so that a slow minute of the machine hits every peer alike.

    The first `warm_up` rounds are run and not returned.
    """
    results: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(warm_up + rounds):
        for name in names:
            result = measure(name)
            if turn >= warm_up:
                results[name].append(result)
    return results


class Wanted(msgspec.Struct, frozen=True):
    """A figure that was promised, beside the one that was measured."""

    measure: str
    wanted: str
    measured: float
    unit: str
    reached: bool
    note: str = ""
    """What bounds the figure, where something other than what is measured does."""


def at_most(
    measure: str, limit: float, measured: float, unit: str = "×", *, note: str = ""
) -> Wanted:
    return Wanted(measure, f"≤ {limit:g} {unit}", measured, unit, measured <= limit, note)


def at_least(
    measure: str, limit: float, measured: float, unit: str = "×", *, note: str = ""
) -> Wanted:
    return Wanted(measure, f"≥ {limit:g} {unit}", measured, unit, measured >= limit, note)


def machine(packages: Iterable[str]) -> dict[str, Any]:
    """What the figures were measured on: processor, cores, system, Python, package versions.

    `load` is how many processes wanted to run in the last minute: above 0.5 before the start,
    somebody else was at work.
    """
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "packages": {name: _version(name) for name in packages},
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def print_json(result: Mapping[str, Any]) -> None:
    """One object on one line of stdout, for machines."""
    print(msgspec.json.encode(result).decode())


def print_machine(description: Mapping[str, Any]) -> None:
    packages = ", ".join(f"{name} {found}" for name, found in description["packages"].items())
    print(
        f"{description['processor']}, {description['cores']} cores, {description['system']}, "
        f"{description['python']}, load {description['load']}\n{packages}"
    )


def number(value: float) -> str:
    """At least three significant figures, with thousands separators: 0.123, 4.56, 12,345."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """First column to the left, figures to the right, as Markdown so that it can be quoted."""
    widths = [max(len(row[column]) for row in [headers, *rows]) for column in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |"

    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    print(f"\n{title}\n\n{line(headers)}\n{line(rules)}")
    for row in rows:
        print(line(row))


def print_wanted(figures: Sequence[Wanted]) -> None:
    if not figures:
        return
    print_table(
        "wanted figures",
        ["measure", "wanted", "measured", "reached"],
        [
            [f.measure, f.wanted, f"{number(f.measured)} {f.unit}", "yes" if f.reached else "NO"]
            for f in figures
        ],
    )
    for figure in figures:
        if figure.note:
            print(f"\n{figure.measure}: {figure.note}")
