"""The programs of the page on finding instruments, run word for word against the exchange."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import neo_async
from neo_async import Order
from tests.clients import client_of, exchange_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "instruments.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


async def test_every_program_of_the_page_does_what_it_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names: dict[str, Any] = {name: getattr(neo_async, name) for name in neo_async.__all__}
    async with exchange_of() as exchange, client_of(exchange) as names["neo"]:
        for program in PROGRAMS:
            code = compile(program, PAGE.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(code, names)
            if running is not None:
                await running
    assert isinstance(names["order"], Order)
    assert [quote.symbol for quote in names["quotes"].values()][:2] == ["ITBEES-EQ", "TCS-EQ"]
    assert (names["call"].option_type, names["put"].option_type) == ("CE", "PE")
    (error,) = capsys.readouterr().out.splitlines()
    assert f"# {error}" in PROGRAMS[-1]
