"""Print the lowest versions of the run-time dependencies that pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
for requirement in project["dependencies"]:
    match = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)(;.*)?", requirement.replace(" ", ""))
    if match is None:
        raise SystemExit(f"{requirement!r}: a dependency needs one lower bound, as name>=version")
    print(f"{match[1]}=={match[2]}")
