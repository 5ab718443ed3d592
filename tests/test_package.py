"""The package as it is imported: complete, documented, and light."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import tomllib
from enum import Enum
from pathlib import Path

import msgspec
import pytest

import neo_async

ROOT = Path(__file__).parents[1]


def run_python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", neo_async.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    thing = getattr(neo_async, name)
    if inspect.isclass(thing):
        own = vars(thing).get("__doc__") or ""
        # What dataclasses and enums write by themselves says nothing.
        assert own.strip(), f"{name} has no docstring"
        assert not own.startswith((f"{name}(", "An enumeration"))
        assert thing.__module__.startswith("neo_async.")
    elif callable(thing):
        assert (thing.__doc__ or "").strip()


def test_names_are_listed_once_and_completed_by_dir() -> None:
    assert len(set(neo_async.__all__)) == len(neo_async.__all__)
    assert set(neo_async.__all__) <= set(dir(neo_async))
    scope: dict[str, object] = {}
    exec("from neo_async import *", scope)
    assert set(neo_async.__all__) <= set(scope)


def test_the_three_lists_of_public_names_agree() -> None:
    """The table that imports lazily, the imports for type checkers, and `__all__`."""
    tree = ast.parse(Path(neo_async.__file__).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    assert {node.module: {each.name for each in node.names} for node in imports} == {
        module: set(names) for module, names in neo_async._PUBLIC.items()
    }
    public = [name for names in neo_async._PUBLIC.values() for name in names]
    assert sorted([*public, "run"]) == sorted(neo_async.__all__)


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NeoClients"):
        _ = neo_async.NeoClients


def test_importing_warns_of_nothing_and_loads_nothing_of_the_command_line() -> None:
    code = (
        "import json, sys, neo_async\n"
        "from neo_async import NeoClient, Credentials, OrderRequest\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    loaded = set(json.loads(run_python("-W", "error", "-c", code)))
    for heavy in ("typer", "rich", "click", "pandas", "numpy", "neo_api_client"):
        assert heavy not in loaded
    packages = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("neo_async.")}
    assert not {"neo_async.exchange", "neo_async.cli"} & packages


def test_banking_stands_on_its_own() -> None:
    code = (
        "import json, sys, neo_async.banking\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('neo_async.')]))"
    )
    loaded = json.loads(run_python("-W", "error", "-c", code))
    packages = {name.split(".")[1] for name in loaded}
    assert packages == {
        "account",
        "banking",
        "base",
        "config",
        "errors",
        "model",
        "system",
        "transport",
        "wire",
    }


def test_the_exchange_is_imported_without_warnings_too() -> None:
    run_python("-W", "error", "-c", "from neo_async.exchange import Exchange; print(Exchange)")


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert neo_async.__version__ == project["version"]
    assert (ROOT / "neo_async" / "py.typed").exists()


def test_run_returns_what_the_coroutine_returns() -> None:
    async def answer() -> int:
        return 42

    assert neo_async.run(answer()) == 42


def test_vocabularies_hold_the_codes_of_the_wire() -> None:
    assert neo_async.Segment("nse_cm") is neo_async.Segment.NSE_CM
    assert [side.opposite for side in neo_async.Side] == [neo_async.Side.SELL, neo_async.Side.BUY]
    for name in ("Segment", "Side", "OrderType", "Product", "Validity", "OrderStatus"):
        vocabulary = getattr(neo_async, name)
        assert issubclass(vocabulary, Enum)
        assert msgspec.convert(next(iter(vocabulary)).value, vocabulary) is next(iter(vocabulary))


@pytest.mark.parametrize("package", ["execution", "feeds", "risk", "session"])
def test_every_module_of_a_package_has_tests_in_a_test_module_of_its_name(package: str) -> None:
    modules = {path.stem for path in (ROOT / "neo_async" / package).glob("*.py")} - {"__init__"}
    assert modules
    with_tests = {
        path.stem.removeprefix("test_")
        for path in (ROOT / "tests" / package).glob("test_*.py")
        if any(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
            for node in ast.parse(path.read_text()).body
        )
    }
    assert modules <= with_tests, f"without a test module: {sorted(modules - with_tests)}"
