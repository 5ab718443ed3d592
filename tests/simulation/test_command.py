"""`python -m tests.simulation` runs at tiny size and prints what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_compares_programs_with_the_ledger() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--json", "--seeds", "2", "--orders", "4"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)

    assert result["programs"]["seeds"] == 2
    assert result["programs"]["orders"] == 8
    assert result["programs"]["failed_seeds"] == []
    assert all(figure["reached"] for figure in result["wanted"])
