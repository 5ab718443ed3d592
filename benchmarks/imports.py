"""Imports: time and memory of importing this library and the official SDK.

Every import happens in a fresh process; the rounds alternate. Time is that of the import statement;
memory is the peak of the whole process, interpreter included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping

import msgspec

from benchmarks.harness import (
    Benchmark,
    Figure,
    Report,
    Table,
    Wanted,
    alternate,
    at_most,
    cores,
    number,
    pin,
    summarise,
)
from benchmarks.workers import ROOT

STATEMENTS = {
    "interpreter": "pass",
    "neo_async": "import neo_async",
    "neo_client": "from neo_async import NeoClient",
    "kotakneoapi": "import neo_api_client",
}
# VmHWM belongs to this program alone, while ru_maxrss may carry over from the process that
# started it; where there is no /proc, ru_maxrss (KiB, on macOS bytes) has to do.
_PROBE = """
import time
before = time.perf_counter()
{statement}
seconds = time.perf_counter() - before
try:
    lines = open("/proc/self/status").read().splitlines()
    peak_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
except OSError:
    import resource, sys
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_kib = peak / 1024 if sys.platform == "darwin" else peak
print(seconds * 1e3, peak_kib / 1024)
"""


class Import(msgspec.Struct, frozen=True):
    """The figures of one import statement."""

    milliseconds: Figure
    peak_mib: Figure


def measure_imports(rounds: int) -> dict[str, Import]:
    runs = alternate(list(STATEMENTS), lambda name: _run(STATEMENTS[name]), rounds=rounds)
    return {
        name: Import(
            summarise(milliseconds for milliseconds, _ in values),
            summarise(peak for _, peak in values),
        )
        for name, values in runs.items()
    }


def _run(statement: str) -> tuple[float, float]:
    """Return the statement's milliseconds and the peak MiB of a process of its own."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(statement=statement)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    milliseconds, peak = done.stdout.split()
    return float(milliseconds), float(peak)


def wanted_of_imports(imports: Mapping[str, Import]) -> list[Wanted]:
    sdk = imports["kotakneoapi"]
    figures = []
    for name in ("neo_async", "neo_client"):
        mine = imports[name]
        time = mine.milliseconds.median / sdk.milliseconds.median
        memory = mine.peak_mib.median / sdk.peak_mib.median
        figures += [
            at_most(f"{STATEMENTS[name]}: time against kotakneoapi", 0.333, time),
            at_most(f"{STATEMENTS[name]}: peak memory against kotakneoapi", 0.5, memory),
        ]
    return figures


def measure(arguments: argparse.Namespace) -> Report:
    """Measure every statement."""
    pin(cores()[1])  # the fresh processes inherit it
    imports = measure_imports(arguments.rounds)
    table = Table(
        "importing, each in a fresh process",
        ["statement", "ms", "low – high", "peak, MiB"],
        [
            [STATEMENTS[name], *one.milliseconds.cells(), number(one.peak_mib.median)]
            for name, one in imports.items()
        ],
    )
    return Report(
        {"settings": {"rounds": arguments.rounds}, "imports": imports},
        [table],
        wanted_of_imports(imports),
        f"{arguments.rounds} alternating rounds after one to warm up",
    )


BENCHMARK = Benchmark("imports", __doc__, measure, packages=("kotakneoapi",), rounds=9)

if __name__ == "__main__":
    BENCHMARK.main()
