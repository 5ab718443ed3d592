"""The part that all benchmarks share: options, alternating rounds, figures, wanted values, tables.

A benchmark declares its name, packages, rounds and options, and a function that measures. This
module parses the command, calls that function, and prints its report as tables or as JSON.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

T = TypeVar("T")


def cores() -> tuple[int | None, int | None]:
    """Return one core for the server and another one for the peer that is measured.

    Both are None where a process cannot be pinned, or has only one core.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def pin(core: int | None) -> None:
    """Keep this process, with all threads and processes it will start, on one core, if given."""
    if core is not None:
        os.sched_setaffinity(0, {core})


class Figure(msgspec.Struct, frozen=True):
    """Median and range of one figure over the rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def range(self) -> str:
        """The lowest and the highest round, as text."""
        return f"{number(self.low)} – {number(self.high)}"

    def cells(self) -> list[str]:
        """Return the cells of a table: median, and range."""
        return [number(self.median), self.range]

    def three_cells(self) -> list[str]:
        """Return the cells of a table: median, lowest and highest."""
        return [number(self.median), number(self.low), number(self.high)]


def summarise(values: Iterable[float]) -> Figure:
    """Return the median, the lowest and the highest of one value a round."""
    ordered = sorted(values)
    return Figure(statistics.median(ordered), ordered[0], ordered[-1], len(ordered))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the sorted values lie, by nearest rank."""
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


def measure_calls(
    calls: Mapping[str, Callable[[], float]], *, rounds: int, warm_up: int = 1
) -> dict[str, Figure]:
    """Measure calls that each return one value, in alternating rounds."""
    values = alternate(list(calls), lambda name: calls[name](), rounds=rounds, warm_up=warm_up)
    return {name: summarise(of_name) for name, of_name in values.items()}


def microseconds(call: Callable[[], object], repeats: int) -> float:
    """Return the time of one call, as the mean of so many."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        call()
    return (time.perf_counter_ns() - start) / repeats / 1e3


def microseconds_after_collection(call: Callable[[], object], repeats: int) -> float:
    """Return the time of one call after a garbage collection; the collector stays on."""
    gc.collect()
    return microseconds(call, repeats)


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 on systems without /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Wanted(msgspec.Struct, frozen=True):
    """A promised figure, beside the measured one."""

    measure: str
    wanted: str
    measured: float
    unit: str
    reached: bool
    note: str = ""
    """The limit of the figure, where something else than the measured code sets it."""


def at_most(
    measure: str, limit: float, measured: float, unit: str = "×", *, note: str = ""
) -> Wanted:
    return Wanted(measure, f"≤ {limit:g} {unit}", measured, unit, measured <= limit, note)


def at_least(
    measure: str, limit: float, measured: float, unit: str = "×", *, note: str = ""
) -> Wanted:
    return Wanted(measure, f"≥ {limit:g} {unit}", measured, unit, measured >= limit, note)


def machine(packages: Iterable[str]) -> dict[str, Any]:
    """Return processor, cores, system, Python and package versions of this machine.

    `load` is the number of processes ready to run in the last minute. Above 0.5 before the start,
    other programs disturb the figures.
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
    """Print one JSON object on one line."""
    print(msgspec.json.encode(result).decode())


def print_machine(description: Mapping[str, Any]) -> None:
    packages = ", ".join(f"{name} {found}" for name, found in description["packages"].items())
    print(
        f"{description['processor']}, {description['cores']} cores, {description['system']}, "
        f"{description['python']}, load {description['load']}\n{packages}"
    )


def number(value: float) -> str:
    """Format with at least three significant figures and thousands separators: 4.56, 12,345."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table: the first column aligned left, figures aligned right."""
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


# --- the command ----------------------------------------------------------------------------------


class Table(NamedTuple):
    """A table of a report."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def readers_table(title: str, unit: str, ours: str, figures: Mapping[str, Figure]) -> Table:
    """Return a table of readers of the same bytes: their times, and these over ours."""
    return Table(
        title,
        ["reader", f"{unit}, median", "low – high", "× neo_async"],
        [
            [name, *figure.cells(), f"{figure.median / figures[ours].median:.2f}"]
            for name, figure in figures.items()
        ],
    )


class Report(NamedTuple):
    """The result of one run of a benchmark."""

    fields: Mapping[str, Any]
    """The benchmark's own fields of the JSON object."""
    tables: Sequence[Table]
    wanted: Sequence[Wanted]
    conditions: str = ""
    """Line about rounds and cores, printed above the tables."""


class Benchmark(NamedTuple):
    """A command that measures, and prints its report."""

    name: str
    description: str | None
    """The docstring of the benchmark's module."""
    measure: Callable[[argparse.Namespace], Report]
    packages: Sequence[str]
    """Packages whose versions the report names."""
    rounds: int
    """Default of `--rounds`."""
    seconds: float | None = None
    """Default of `--seconds`, the length of a round; None for benchmarks without that option."""
    add_options: Callable[[argparse.ArgumentParser], None] | None = None
    """Adds the options that only this benchmark has."""

    def main(self) -> None:
        """Run the command with the arguments of this process."""
        arguments = self._parser().parse_args()
        description = machine(self.packages)
        report = self.measure(arguments)
        if arguments.json:
            head = {"benchmark": self.name, "machine": description}
            print_json({**head, **report.fields, "wanted": report.wanted})
            return
        print_machine(description)
        if report.conditions:
            print(report.conditions)
        for table in report.tables:
            print_table(*table)
        print_wanted(report.wanted)

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"python -m benchmarks.{self.name}",
            description=self.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
        parser.add_argument(
            "--rounds", type=int, default=self.rounds, metavar="N", help="counted rounds of a peer"
        )
        if self.seconds is not None:
            parser.add_argument(
                "--seconds", type=float, default=self.seconds, metavar="S", help="of one round"
            )
        if self.add_options is not None:
            self.add_options(parser)
        return parser
