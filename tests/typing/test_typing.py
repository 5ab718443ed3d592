"""What users write, checked by mypy and by pyright: it must pass without casts, and only misuse
must not."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOT = Path(__file__).with_name("bot.py")
CACHE = ROOT / ".mypy_cache" / "typing"
WRONG = {
    number
    for number, line in enumerate(BOT.read_text().splitlines(), start=1)
    if line.endswith("# WRONG")
}


def output_of(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=110
    )
    return done.stdout + done.stderr


def readme_example(path: Path) -> Path:
    """Write the README's first example to a file."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code is not None
    path.write_text(code.group(1).replace("async def main():", "async def main() -> None:"))
    return path


@pytest.mark.timeout(120)
def test_a_typed_bot_passes_mypy_strict(tmp_path: Path) -> None:
    readme = readme_example(tmp_path / "readme.py")
    text = output_of(
        sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary",
        "--follow-imports=silent", f"--cache-dir={CACHE}", str(BOT), str(readme),
    )  # fmt: skip
    errors = re.findall(r"^(\S+?\.py):(\d+): error: (.*)$", text, re.MULTILINE)
    assert [error for error in errors if "readme" in error[0]] == []
    wrong = {int(line) for _, line, _ in errors}
    # Stubs of pandas are not a part of it: without them, its frames are Any.
    ours = {int(line) for _, line, words in errors if "pandas" not in words}
    assert ours == WRONG <= wrong, text


@pytest.mark.timeout(120)
@pytest.mark.skipif(
    not (shutil.which("pyright") or importlib.util.find_spec("pyright")),
    reason="pyright, or the node that it runs on, is not installed",
)
def test_a_typed_bot_passes_pyright(tmp_path: Path) -> None:
    readme = readme_example(tmp_path / "readme.py")
    pyright = shutil.which("pyright")
    command = [pyright] if pyright else [sys.executable, "-m", "pyright"]
    text = output_of(
        *command, "--outputjson", "--pythonpath", sys.executable, str(BOT), str(readme)
    )
    found = json.loads(text[text.index("{") :])["generalDiagnostics"]
    errors = {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"])
        for each in found
        if each["severity"] == "error"
    }
    assert {(name, line) for name, line, _ in errors} == {("bot.py", line) for line in WRONG}, (
        errors
    )
