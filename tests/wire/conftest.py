"""Documented answers, by the name of their file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from neo_async.model.answer import Answer

PAYLOADS = Path(__file__).parents[1] / "payloads"


@pytest.fixture
def documented() -> Callable[[str], Answer]:
    return lambda name: Answer(200, {}, (PAYLOADS / f"{name}.json").read_bytes())
