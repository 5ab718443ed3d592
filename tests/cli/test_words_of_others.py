"""What a broker, a bank or a payer has written is seen in a terminal, and cannot act on it."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import neo_async
from neo_async.cli import output
from neo_async.cli.csv_output import as_text
from neo_async.cli.output import Cell
from neo_async.cli.table_layout import Column
from neo_async.errors import ProtocolError, Rejected
from tests.banking.small_bank import CLIENT, CLIENT_ID, CLIENT_SECRET, PHYSICAL, SmallBank, serving
from tests.cli.conftest import Invoke, exchange_in_a_thread

EVIL = "A\x1b]52;c;cm0=\x07\x1b[2J\x9b1m\r\nB\u202e.C\u2028D"
SEEN = r"A\x1b]52;c;cm0=\x07\x1b[2J\x9b1m\r\nB\u202e.C\u2028D"


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SmallBank]:
    """A bank with three credits, and the environment that leads commands to it."""
    bank = SmallBank()
    bank.add_credits(3)
    with exchange_in_a_thread(serving(bank)):  # type: ignore[arg-type]
        profile = tmp_path / "bank.toml"
        profile.write_text("[plan]\nrequests_per_second = 1000\n")
        for name, value in {
            "KOTAK_BANK_URL": bank.url,
            "KOTAK_BANK_PROFILE": str(profile),
            "KOTAK_BANK_CLIENT_ID": CLIENT_ID,
            "KOTAK_BANK_CLIENT_SECRET": CLIENT_SECRET,
            "KOTAK_BANK_CLIENT_NAME": CLIENT,
            "KOTAK_BANK_PHYSICAL_ACCOUNT": PHYSICAL,
        }.items():
            monkeypatch.setenv(name, value)
        yield bank


# --- terminals ------------------------------------------------------------------------------------


def test_a_table_shows_what_would_act(capsys: pytest.CaptureFixture[str]) -> None:
    columns = (Column(EVIL), Column("B"))
    output.print_table(columns, [(EVIL, Cell(EVIL, "red")), ("x", "y")])
    output.print_notes([EVIL])
    output.echo(EVIL, err=True)
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 5
    assert printed.out.count(SEEN) == 4
    assert printed.err == SEEN + "\n"


def test_every_console_shows_what_would_act() -> None:
    """Also what reaches it by other ways than the helper for tables."""
    console = output.console(file=io.StringIO(), width=200, force_terminal=True)
    table = Table()
    table.add_column(EVIL)
    table.add_row(Text(EVIL, style="red"))
    console.print(Group(table, Panel(Text(EVIL), title=EVIL)), EVIL)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)  # rich's own colours
    assert not set(plain) & set("\x1b\x07\x9b\u202e\u2028")
    assert r"\x1b]52" in plain


def test_no_command_prints_past_the_helper() -> None:
    folder = Path(output.__file__).parent
    past = re.compile(r"typer\.echo|(?<!console\.)\bprint\(|[^.\w]Console\(")
    helpers = {"output.py", "console.py", "profile.py"}
    found = {
        f"{file.name}: {line.strip()}"
        for file in folder.rglob("*.py")
        if file.name not in helpers
        for line in file.read_text().splitlines()
        if past.search(line)
    }
    assert found == {"exchange.py: typer.echo(msgspec.json.encode(ready))"}


@pytest.mark.parametrize("error", [Rejected(EVIL, code=EVIL), ProtocolError(EVIL, body=EVIL)])
def test_an_error_is_one_line(error: neo_async.NeoError) -> None:
    assert len(str(error).splitlines()) == 1
    assert "\x1b" not in str(error)


def test_a_warning_of_a_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert logging.lastResort is not None
    record = logging.LogRecord("x", logging.WARNING, "", 0, "odd: %s", (EVIL,), None)
    assert logging.lastResort.format(record) == f"odd: {SEEN}"


def test_credits_cannot_write_to_the_terminal(bank: SmallBank, invoke: Invoke) -> None:
    bank.credits[0] |= {"remitterName": EVIL, "narration": EVIL, "mode": EVIL}
    told = invoke("bank", "transactions", "--peek")
    assert told.exit_code == 0
    assert not set(told.everything) & set("\x1b\x07\x9b\u202e\u2028\r")
    printed = json.loads(invoke("bank", "transactions", "--peek", "--json").stdout.splitlines()[0])
    assert printed["remitter_name"] == EVIL


# --- spreadsheets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("RAVI K", "RAVI K"),
        ("", ""),
        ("-5.00", "-5.00"),
        ("+919876543210", "+919876543210"),
        ("1500.00", "1500.00"),
        ('=HYPERLINK("x")', '\'=HYPERLINK("x")'),
        ("@SUM(1)", "'@SUM(1)"),
        ("+1+1", "'+1+1"),
        ("-", "'-"),
        ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
        ("\t=1", r"'\t=1"),
        ("\r=1", r"'\r=1"),
        ("＝1+1", "'＝1+1"),
        ("two\r\nlines", r"two\r\nlines"),
    ],
)
def test_a_cell_stays_text(cell: str, written: str) -> None:
    assert as_text(cell) == written


@given(st.text())
def test_no_cell_is_a_formula(text: str) -> None:
    written = as_text(text)
    assert written[:1] not in set("=+-@\t\r\n") or re.fullmatch(r"[+-][0-9]+(\.[0-9]+)?", written)
    assert len(written.splitlines()) <= 1


def test_credits_in_csv_are_no_formulas_and_numbers_stay_numbers(
    bank: SmallBank, invoke: Invoke
) -> None:
    bank.credits[0] |= {"remitterName": "=1+1", "narration": "@SUM(A1)\r", "utr": "-7"}
    told = invoke("bank", "transactions", "--peek", "--csv")
    first, *_ = csv.DictReader(io.StringIO(told.stdout))
    assert first["remitter_name"] == "'=1+1"
    assert first["narration"] == r"'@SUM(A1)\r"
    assert (first["amount"], first["utr"], first["sequence"]) == ("1.01", "-7", "1")
    for command in (("transactions",), ("create",), ("refund",)):
        assert "apostrophe" in " ".join(invoke("bank", *command, "--help").stdout.split())


# --- entries that are no credits ------------------------------------------------------------------


def test_an_entry_that_is_no_credit_is_not_taken_unless_it_is_wished(
    bank: SmallBank, invoke: Invoke
) -> None:
    bank.credits[1]["amount"] = "-1500.00"
    stopped = invoke("bank", "transactions", "--yes", "--csv")
    assert stopped.exit_code == 1
    assert "credit REF00000002: its amount is -1500.00" in stopped.everything
    assert "--skip-unreadable" in stopped.everything
    assert bank.acknowledged == 0
    peeked = invoke("bank", "transactions", "--peek", "--csv")
    assert peeked.exit_code == 0
    assert bank.acknowledged == 0
    taken = invoke("bank", "transactions", "--yes", "--csv", "--skip-unreadable")
    assert taken.exit_code == 0
    assert '"amount":"-1500.00"' in taken.everything
    for shown in (peeked, taken):
        found = [row["reference"] for row in csv.DictReader(io.StringIO(shown.stdout))]
        assert found == ["REF00000001", "REF00000003"]
    assert bank.acknowledged == 3
