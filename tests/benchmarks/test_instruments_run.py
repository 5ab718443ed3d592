from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ("--json", "--rounds", "1", "--rows", "5000", "--file", "absent.csv")
FIGURE = {"median", "low", "high", "rounds"}


def test_instruments_measures_loading_finding_and_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.instruments", *OPTIONS],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["benchmark"], result["rows"], result["real_file"]) == ("instruments", 5000, {})
    assert result["loads"].keys() == {"first", "cached"}
    for load in result["loads"].values():
        assert load.keys() == {"milliseconds", "held_ms", "held_cpu_ms"}
        assert load["milliseconds"].keys() == FIGURE
        assert 0 < load["held_ms"]["median"] < load["milliseconds"]["median"]
    assert {"lookup by symbol", "lookup by token"} <= result["microseconds"].keys()
    assert all(figure["median"] > 0 for figure in result["microseconds"].values())
    assert len(result["wanted"]) == 9
