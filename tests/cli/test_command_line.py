"""The words around every command: help, usage errors, completion, CSV, and the ends of a pipe."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from neo_async.cli import output, trade
from neo_async.cli.app import app
from neo_async.exchange import Exchange
from tests.cli.conftest import Invoke

PLACE = ("place", "nse_cm", "TCS-EQ", "buy", "5", "--product", "MIS", "--price", "2100")


def every_command(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = list(every_command())
of_every_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


def parameters_of(command: tuple[str, ...]) -> list[Any]:
    found: Any = typer.main.get_command(app)
    for name in command:
        found = found.commands[name]
    return list(found.params)


def without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("NEO_", "KITE_", "KOTAK_")):
            monkeypatch.delenv(name)


# --- help -----------------------------------------------------------------------------------------


@of_every_command
@pytest.mark.parametrize("width", [60, 80])
def test_help_fits_and_explains_every_parameter(command: tuple[str, ...], width: int) -> None:
    text = CliRunner().invoke(app, [*command, "--help"], terminal_width=width).stdout
    examples = re.compile(r"^  neo-async .*$", re.MULTILINE)
    assert max(map(len, examples.sub("", text).splitlines())) <= width
    for parameter in parameters_of(command):
        assert parameter.help, f"{parameter.name} is not explained"
        assert " ".join(parameter.help.split()) in " ".join(text.split())
    assert "<" not in text  # typer's type of a value


@of_every_command
def test_a_flag_takes_no_value_in_help(command: tuple[str, ...], invoke: Invoke) -> None:
    text = invoke(*command, "--help").stdout
    for parameter in parameters_of(command):
        if getattr(parameter, "is_flag", False):
            assert re.search(rf"{max(parameter.opts, key=len)}( {{2,}}|\n)", text)


@of_every_command
def test_options_are_written_in_small_letters(command: tuple[str, ...]) -> None:
    names = [name for one in parameters_of(command) for name in one.opts]
    assert [name for name in names if name.startswith("-") and name != name.lower()] == []


def test_choices_can_be_copied_from_help(invoke: Invoke) -> None:
    text = invoke("place", "--help").stdout
    assert "SIDE        B (buy) or S (sell)." in text
    assert "--product PRODUCT    CNC, MIS, NRML, MTF, CO or BO. [required]" in text
    assert "--type TYPE          L (limit), MKT (market), SL or SL-M. [default: L]" in text


def test_the_help_of_a_group_is_shown_without_a_command(invoke: Invoke) -> None:
    for group in ((), ("kite",), ("kite", "sip"), ("bank",)):
        shown = invoke(*group)
        assert shown.exit_code == 2
        assert shown.stdout == ""
        assert "--help" in shown.everything


def test_the_page_of_the_command_line_lists_every_command() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "cli.md").read_text(encoding="utf-8")
    table = page.partition("| command |")[2].partition("\n\n")[0]
    listed = re.findall(
        r"`([a-z -]+)`", " ".join(row.split("|")[1] for row in table.splitlines()[2:])
    )
    assert sorted(listed) == sorted(map(" ".join, COMMANDS))


# --- errors of arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("place", "nse_xx", "A", *PLACE[3:]),
            "segment='nse_xx': must be one of nse_cm, bse_cm, nse_fo, bse_fo, cde_fo, mcx_fo",
        ),
        (("chain", "nse_xx", "NIFTY"), "segment='nse_xx': must be one of nse_cm"),
        (("chain", "nse_fo", "NIFTY", "2026-12-01"), "must be an underlying, or its segment"),
        (("place", "nse_cm", "A", "hold", "5"), "SIDE 'hold': must be one of B (buy), S (sell)"),
        (("place", "nse_cm", "A", "buy", "5", "6"), "SIDE '5': must be one of B (buy), S (sell)"),
        (("place", "nse:TCS", *PLACE[3:]), "instrument='nse:TCS': must be an Instrument"),
        (("place", "TCS", *PLACE[3:-1], "2100.003"), "price='2100.003': has more than 2 decimals"),
        ((*PLACE, "--validity", "GTC"), "--validity 'GTC': must be one of DAY, IOC"),
        ((*PLACE, "--type", "stop"), "--type 'stop': must be one of L (limit), MKT (market), SL,"),
        (
            ("margin", *PLACE[1:7]),
            "price=None: order type L needs a limit price; MKT is the type without one",
        ),
        (("quote", "nse:11536"), "INSTRUMENT 'nse:11536': must be such as nse_cm:2885,"),
        (("candles", "nse:1333", "D", "--from", "2026-01-01"), "INSTRUMENT 'nse:1333': must be"),
        (("watch", "nse:TCS"), "INSTRUMENT 'nse:TCS': must be such as nse_cm:2885,"),
        (("instruments", "nse_cm", "TCS", "--search", "INFY"), "'TCS' or --search 'INFY'"),
        (("place", "nse_cm", "A", "buy", "x"), "QUANTITY 'x': must be a whole number, 1 or more"),
        (("place", "nse_cm", "A", "buy", "0"), "QUANTITY '0': must be a whole number, 1 or more"),
        (
            ("place", "nse_cm", "A", "buy", "1", "--product", "gold"),
            "--product 'gold': must be one of CNC, MIS, NRML, MTF, CO, BO",
        ),
        (("place", "RELIANCE", "buy", "-1"), "a value must not be negative: it reads as an option"),
        (("paper", "price", "RELIANCE", "-1400.5"), "a value must not be negative"),
        (("instruments",), "give a segment, such as nse_cm, or what to search, such as RELIANCE"),
        ((*PLACE, "--wait", "-1"), "--wait '-1': must be a number of seconds, 0 or more"),
        ((*PLACE, "--wait", "nan"), "--wait 'nan': must be a number of seconds, 0 or more"),
        (("modify", "1", "--quantity", "1.5"), "--quantity '1.5': must be a whole number"),
        (("chain", "nse_fo", "NIFTY", "--expiry", "soon"), "must be a day as YYYY-MM-DD"),
        (
            ("candles", "nse_cm:1333", "5min", "--from", "2026-13-01"),
            "--from '2026-13-01': must be a day as YYYY-MM-DD",
        ),
        (("instruments", "nse_cm", "--limit", "-1"), "--limit '-1': must be a whole number"),
        (("quote", "nse_cm:1", "--filter", "all_of_it"), "must be one of all, ltp"),
        (("watch", "--level", "deep"), "--level 'deep': must be one of lite, scrip, depth"),
        (("demo", "--svg", "/nonexistent/x.svg"), "there is no directory /nonexistent"),
        (("demo", "--svg", "/"), "--svg '/': is a directory"),
        (("demo", "--seed", "seven"), "--seed 'seven': must be a whole number"),
        (("bank", "transactions", "--store", "/nonexistent/x.db"), "no directory /nonexistent"),
        (("bank", "transactions", "--follow", "0"), "must be a number of seconds, 1 or more"),
        (("bank", "create", "--from", "1.1.2026"), "--from '1.1.2026': must be a day"),
        (("kite", "sip", "place", "INF1", "1", "--frequency", "daily"), "must be one of weekly"),
        (("exchange", "--port", "x"), "--port 'x'"),
        (("modify", "1", "--price", "abc"), "price='abc': must be decimal text"),
        ((*PLACE, "--tag", "toolongatag"), "tag='toolongatag': must be at most 9"),
        ((*PLACE, "--target", "5"), "a bracket needs both --target and --stop"),
        (("chain", "nse_fo", "NIFTY", "--count", "15"), "count=15: must be a multiple of 10"),
        (
            ("candles", "nse_cm:1333", "D", "--from", "2026-05-01", "--to", "2026-01-01"),
            "end=2026-01-01: must not be before start=2026-05-01",
        ),
        (("cancel",), "give one order's number, or --all"),
        (("cancel", "1", "--all"), "give one order's number, or --all"),
        (("bank", "transactions", "--peek", "--follow", "5"), "--peek excludes --follow"),
        (("orders", "--csv", "--json"), "--csv and --json exclude each other"),
        (("kite", "orders", "--csv", "--json"), "--csv and --json exclude each other"),
    ],
)
def test_a_wrong_value_is_one_line_before_any_work(
    arguments: tuple[str, ...], message: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_environment(monkeypatch)
    shown = invoke(*arguments)
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert message in shown.everything
    assert shown.everything.startswith("neo-async: ")
    assert shown.everything.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("place",), "INSTRUMENT is missing: nse_cm:2885, nse_cm:RELIANCE-EQ, RELIANCE,"),
        (("place", "TCS-EQ", "buy"), "INSTRUMENT is missing: "),
        (PLACE[:5], "--product is missing: CNC, MIS, NRML, MTF, CO or BO."),
        (("orders", "today"), "extra argument"),
        ((*PLACE, "--producy", "CNC"), "--producy"),
    ],
)
def test_a_call_that_is_not_complete_shows_how_it_is_made(
    arguments: tuple[str, ...], message: str, invoke: Invoke
) -> None:
    shown = invoke(*arguments)
    assert shown.exit_code == 2
    assert message in shown.everything.splitlines()[0]
    assert "Usage: " in shown.everything
    usage = "[OPTIONS] INSTRUMENT... SIDE QUANTITY --product"
    assert usage in shown.everything or arguments[0] == "orders"


def test_a_command_with_a_typing_mistake_is_guessed(invoke: Invoke) -> None:
    assert "Did you mean 'orders'?" in invoke("ordrs").everything


ABLE_WITHOUT = {("demo",), ("exchange",), ("bank", "profile")}
"""Commands that work without an environment."""


@pytest.mark.parametrize("command", [one for one in COMMANDS if one not in ABLE_WITHOUT])
def test_no_command_leaves_a_traceback_without_an_environment(
    command: tuple[str, ...], invoke: Invoke, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_environment(monkeypatch)
    shown = invoke(*command)
    assert shown.exit_code in (0, 1, 2)
    assert "Traceback" not in shown.everything


# --- unexpected errors ----------------------------------------------------------------------------


def broken(*arguments: object, **options: object) -> None:
    raise KeyError("odd\x1b[2J")


def run_broken(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(trade, "Account", broken)
    result = CliRunner().invoke(app, [*PLACE, "--yes", *arguments])
    return result.exit_code, result.stderr


def test_an_unexpected_error_is_one_line_and_says_where_to_find_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, text = run_broken(monkeypatch)
    assert code == 1
    assert text.startswith("neo-async: unexpected KeyError: ")
    assert "--debug" in text
    assert "Traceback" not in text
    assert "\x1b" not in text


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neo_async.cli.commands._log_everything", lambda: None)
    code, text = run_broken(monkeypatch, "--debug")
    assert code == 1
    assert "Traceback" in text
    assert "in broken" in text
    assert "\x1b" not in text


# --- completion -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "completions"),
    [
        ("neo-async pl", ["place"]),
        ("neo-async place nse", ["nse_cm", "nse_fo"]),
        ("neo-async place nse_cm A s", ["sell"]),
        ("neo-async chain nse", ["nse_cm", "nse_fo"]),
        ("neo-async instruments bse_f", ["bse_fo"]),
        ("neo-async place A buy 5 --type m", ["market"]),
        ("neo-async place nse_cm A buy 5 --product c", ["cnc", "co"]),
        ("neo-async place nse_cm A buy 5 --product C", ["CNC", "CO"]),
        ("neo-async candles nse_cm:1 1", ["1min", "10min", "15min"]),
        ("neo-async kite sip m", ["modify"]),
        ("neo-async place nse_cm A buy 5 --tr", ["--trigger", "--trail"]),
    ],
)
def test_the_shell_completes_commands_choices_and_options(
    typed: str, completions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_NEO_ASYNC_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    result = CliRunner().invoke(app, prog_name="neo-async")
    assert result.stdout.split() == completions


def test_completion_can_be_shown_for_a_shell(invoke: Invoke) -> None:
    assert "_NEO_ASYNC_COMPLETE" in invoke_script("bash")


def invoke_script(shell: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "neo_async", "--show-completion", shell],
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


# --- CSV ------------------------------------------------------------------------------------------

REPORTS = [
    ("orders",),
    ("trades",),
    ("positions",),
    ("holdings",),
    ("limits",),
    ("quote", "nse_cm:1333", "nse_cm:2885"),
    ("chain", "nse_fo", "NIFTY", "--count", "10"),
    ("chain", "nse_fo", "NIFTY", "--futures"),
    ("candles", "nse_cm:1333", "D", "--from", "2026-01-01"),
    ("instruments", "nse_cm"),
    ("margin", "nse_cm", "11536", "buy", "1", "--product", "CNC", "--price", "2100"),
]


@pytest.mark.parametrize("command", REPORTS, ids=" ".join)
def test_every_report_is_csv_with_a_heading_and_rows_of_one_length(
    command: tuple[str, ...], exchange: Exchange, invoke: Invoke
) -> None:
    placed = invoke(*PLACE, "--yes", "--json")
    assert placed.exit_code == 0
    shown = invoke(*command, "--csv")
    assert shown.exit_code == 0
    headings, *rows = csv.reader(io.StringIO(shown.stdout, newline=""), strict=True)
    assert len(set(headings)) == len(headings)
    assert {len(row) for row in rows} <= {len(headings)}
    content = json.loads(invoke(*command, "--json").stdout)
    if isinstance(content, list):
        assert len(rows) == len(content)
        for row, fields in zip(rows, content, strict=True):
            for name, cell in zip(headings, row, strict=True):
                if isinstance(fields[name], float):
                    assert float(cell) == fields[name]


def test_the_heading_is_there_without_rows(exchange: Exchange, invoke: Invoke) -> None:
    (line,) = invoke("orders", "--csv").stdout.splitlines()
    assert line.startswith("number,exchange_number,status_text,segment,symbol,")


def test_lines_of_csv_end_as_in_rfc_4180(exchange: Exchange) -> None:
    command = [sys.executable, "-m", "neo_async", "holdings", "--csv"]
    lines = subprocess.run(command, capture_output=True, check=True).stdout.split(b"\n")
    assert len(lines) > 2
    assert all(line.endswith(b"\r") for line in lines[:-1])


def test_an_order_that_is_placed_is_one_row_of_csv(exchange: Exchange, invoke: Invoke) -> None:
    (row,) = csv.DictReader(io.StringIO(invoke(*PLACE, "--yes", "--csv").stdout))
    assert (row["symbol"], row["side"], row["quantity"]) == ("TCS-EQ", "buy", "5")
    assert row["status"] == "open"


PLAYED = [("paper", name) for name in ("price", "credit", "clock", "reset", "faults", "settings")]
"""Commands that change a simulated exchange; the last two print JSON in any case."""


def test_csv_and_json_are_options_of_every_table() -> None:
    without_table = {
        ("demo",),
        ("exchange",),
        ("login",),
        ("logout",),
        ("watch",),
        ("kite", "login"),
        ("kite", "logout"),
        ("bank", "profile"),
        ("ip",),
        *PLAYED,
    }
    for command in COMMANDS:
        options = {name for one in parameters_of(command) for name in one.opts}
        if command not in without_table:
            assert {"--csv", "--json"} <= options, command
        if command not in {("logout",), ("bank", "profile"), *PLAYED}:
            assert "--json" in options, command


# --- terminals and pipes --------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("--json",), ("--csv",), ("--limit", "0")])
def test_a_reader_that_closes_the_pipe_is_no_error(
    arguments: tuple[str, ...], exchange: Exchange
) -> None:
    command = [sys.executable, "-m", "neo_async", "instruments", "nse_fo", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 0


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_without_colours_gets_none(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv(name, value)
    console = output.console(force_terminal=True, file=io.StringIO(), width=80)
    console.print("[red]x[/red]")
    assert "31m" not in console.file.getvalue()
