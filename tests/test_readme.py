"""What the README and the examples promise, run word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_first_program_prints_what_the_readme_shows() -> None:
    (language, program), (_, shown) = BLOCKS[:2]
    assert language == "python"
    assert shape(output_of("-c", program)) == shape(shown)


@pytest.mark.parametrize(
    "name", ["first_order.py", "burst.py", "virtual_accounts.py", "mutual_funds.py"]
)
def test_examples_run(name: str) -> None:
    assert output_of(f"examples/{name}")


def output_of(*arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.stderr == ""
    assert run.returncode == 0
    return run.stdout


def shape(output: str) -> str:
    """Prices move, and an order's number begins with the day's date: a 0 for each of them."""
    return re.sub(r"\b\d{15}\b|\b\d+\.\d\d\b", "0", output)
