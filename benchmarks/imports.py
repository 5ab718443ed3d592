"""What importing costs: this library, the official SDK, and an interpreter that imports nothing.

    python -m benchmarks.imports [--json] [--rounds N]

Every import happens in a fresh process; the rounds alternate. Time is that of the import statement;
memory is the peak of the whole process, interpreter included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from benchmarks.harness import (
    Figure,
    Wanted,
    alternate,
    at_most,
    cores,
    machine,
    number,
    pin,
    print_json,
    print_machine,
    print_table,
    print_wanted,
    summarise,
)

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("kotakneoapi",)
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
    """One import statement over the rounds."""

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
    """Milliseconds of the statement and MiB at the peak, in a process of its own."""
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds a statement")
    arguments = parser.parse_args()
    description = machine(PACKAGES)
    pin(cores()[1])  # its children inherit it
    imports = measure_imports(arguments.rounds)
    wanted = wanted_of_imports(imports)
    if arguments.json:
        print_json(
            {
                "benchmark": "imports",
                "machine": description,
                "settings": {"rounds": arguments.rounds},
                "imports": imports,
                "wanted": wanted,
            }
        )
        return
    print_machine(description)
    print(f"{arguments.rounds} alternating rounds after one to warm up")
    print_table(
        "importing, each in a fresh process",
        ["statement", "ms", "low – high", "peak, MiB"],
        [
            [
                STATEMENTS[name],
                number(one.milliseconds.median),
                f"{number(one.milliseconds.low)} – {number(one.milliseconds.high)}",
                number(one.peak_mib.median),
            ]
            for name, one in imports.items()
        ],
    )
    print_wanted(wanted)


if __name__ == "__main__":
    main()
