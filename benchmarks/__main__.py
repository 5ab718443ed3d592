"""Run benchmarks by name, one after the other, each in a process of its own.

    python -m benchmarks --list
    python -m benchmarks NAME… [options]

Options follow the names, and every named benchmark gets them. `--json` prints one JSON object for
each benchmark; `python -m benchmarks NAME --help` shows the other options.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "orders": "benchmarks.orders",
    "journal": "benchmarks.journal",
    "exits": "benchmarks.exits",
    "growth": "benchmarks.growth",
    "faults": "tests.simulation.__main__",
    "feed": "benchmarks.feed",
    "exchange": "benchmarks.exchange",
    "exchange_core": "benchmarks.exchange_core",
    "banking": "benchmarks.banking",
    "imports": "benchmarks.imports",
    "decode": "benchmarks.decode",
    "instruments": "benchmarks.instruments",
    "kite": "benchmarks.kite",
}
"""Benchmarks by name, in the order of README.md. `faults` compares with the ledger of the exchange;
it belongs to the tests, and is a process like the others."""


def title_of(module: str) -> str:
    """Return the first line of the module's docstring, without importing it and its packages."""
    source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def main() -> int:
    arguments = sys.argv[1:]
    if "--list" in arguments:
        for name, module in MODULES.items():
            print(f"{name:14} {title_of(module)}")
        return 0
    names = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    unknown = [name for name in names if name not in MODULES]
    if not names or unknown:
        missing = f"no benchmark is named {', '.join(unknown)}\n" if unknown else ""
        print(f"{missing}{__doc__}\nnames: {', '.join(MODULES)}", file=sys.stderr)
        return 2
    options = arguments[len(names) :]
    codes = [
        subprocess.run([sys.executable, "-m", MODULES[name], *options], cwd=ROOT).returncode
        for name in names
    ]
    return max(codes, key=abs)


if __name__ == "__main__":
    sys.exit(main())
