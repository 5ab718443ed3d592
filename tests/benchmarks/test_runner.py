"""`python -m benchmarks` lists every benchmark, and runs those that are named."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import MODULES

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=55,
    )


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_the_list_names_every_benchmark_with_its_title() -> None:
    done = run("--list")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(MODULES)
    assert all(len(line.split()) > 3 for line in lines)


def test_every_module_with_a_command_is_in_the_list() -> None:
    commands = {
        path.stem
        for path in BENCHMARKS.glob("[!_]*.py")
        if "__main__" in path.read_text() and "--json" in path.read_text()
    }
    declared = {path.stem for path in BENCHMARKS.glob("*.py") if "= Benchmark(" in path.read_text()}
    assert (commands | declared) - {"harness"} == MODULES.keys() - {"faults"}


def test_options_are_passed_to_every_named_benchmark() -> None:
    done = run("imports", "imports", "--json", "--rounds", "1")

    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["benchmark"] for result in results] == ["imports", "imports"]
    assert [result["settings"] for result in results] == [{"rounds": 1}] * 2


@pytest.mark.parametrize("arguments", [(), ("--json",), ("nosuch",)])
def test_without_a_known_name_the_names_are_printed(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)

    assert done.returncode == 2
    assert "names: orders, journal" in done.stderr
    assert ("no benchmark is named nosuch" in done.stderr) == (arguments == ("nosuch",))


def test_the_exit_code_of_a_benchmark_is_that_of_the_runner() -> None:
    assert run("imports", "--nosuch").returncode == 2


def test_no_benchmark_imports_the_tests() -> None:
    importing = [
        path.name
        for path in BENCHMARKS.glob("*.py")
        if any(name.partition(".")[0] == "tests" for name in imports_of(path))
    ]
    assert importing == []
