from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIGURE = {"median", "low", "high", "rounds"}


def test_kite_measures_both_readers_on_the_same_bytes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kite", "--json", "--rounds", "1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["benchmark"] == "kite"
    readers = {"neo_async", "kiteconnect"}
    assert result["figures"]["funds"].keys() == readers | {"neo_async, from gzip"}
    assert result["figures"]["sips"].keys() == readers
    for figures in result["figures"].values():
        for figure in figures.values():
            assert figure.keys() == FIGURE
            assert figure["median"] > 0
    assert [figure["unit"] for figure in result["wanted"]] == ["ms", "ms", "×", "×"]
