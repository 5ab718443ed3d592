"""Tables in terminals of any width."""

from __future__ import annotations

import pytest
from rich.console import Console

from neo_async.cli import output
from neo_async.cli.output import Column, print_table

COLUMNS = (
    Column("Order", is_whole=True),
    Column("Time", is_whole=True, is_spare=True),
    Column("Symbol"),
    Column("Price", is_number=True),
    Column("Trigger", is_number=True, is_optional=True),
)
NUMBER = "261121000000001"


def table(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: int,
    *rows: tuple[str, ...],
) -> str:
    monkeypatch.setattr(output, "_console", lambda: Console(width=width))
    print_table(COLUMNS, rows)
    return capsys.readouterr().out


def test_a_column_without_anything_in_it_is_left_out(monkeypatch, capsys):
    with_one = table(
        monkeypatch,
        capsys,
        80,
        (NUMBER, "10:00:00", "A", "1.00", "-"),
        (NUMBER, "", "B", "", "2.00"),
    )
    assert "Trigger" in with_one
    assert "Trigger" not in table(monkeypatch, capsys, 80, (NUMBER, "10:00:00", "A", "1.00", "-"))


def test_what_can_be_spared_goes_first_then_cells_break_between_words_and_words_never(
    monkeypatch, capsys
):
    row = (NUMBER, "10:00:00", "NIFTY FUTURE", "24,485.20", "-")
    wide, spared, broken, narrow = (
        table(monkeypatch, capsys, width, row) for width in (60, 45, 36, 20)
    )
    assert f"{NUMBER}  10:00:00  NIFTY FUTURE  24,485.20" in wide
    assert f"{NUMBER}  NIFTY FUTURE  24,485.20" in spared
    assert [line.strip() for line in broken.splitlines()[2:]] == [
        f"{NUMBER}  NIFTY     24,485.20",
        "FUTURE",
    ]
    assert f"{NUMBER}  NIFTY FUTURE  24,485.20" in narrow
