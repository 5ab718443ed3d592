from __future__ import annotations

import json
from pathlib import Path

import pytest

from neo_async.exchange import Exchange
from tests.cli.conftest import Invoke, exchange_in_a_thread, one_line_a_row, set_environment


@pytest.fixture
def nifty(exchange: Exchange, invoke: Invoke) -> list[dict[str, object]]:
    """What the exchange lists of it, as the command tells machines."""
    shown = invoke("instruments", "nse_fo", "--search", "NIFTY", "--json")
    assert shown.exit_code == 0
    rows: list[dict[str, object]] = json.loads(shown.stdout)["instruments"]
    assert rows
    return rows


def test_the_table_shows_what_was_searched_for(exchange: Exchange, invoke: Invoke) -> None:
    shown = invoke("instruments", "nse_cm", "--search", "itbees")
    assert shown.exit_code == 0
    (line,) = [line for line in shown.stdout.splitlines() if "ITBEES-EQ" in line]
    for cell in ("19084", "ITBEES", "INF204KB15V2", "0.01", "3,312,133"):
        assert cell in line


def test_a_narrow_terminal_shows_what_an_order_needs(
    exchange: Exchange, invoke: Invoke, narrow: None
) -> None:
    shown = invoke("instruments", "nse_fo", "--search", "NIFTY", "--strike", "24000").stdout
    assert one_line_a_row(shown) == "Token Symbol Kind Expiry Strike Option Lot Tick"
    shown = invoke("instruments", "nse_cm", "--search", "TCS").stdout
    assert one_line_a_row(shown) == "Token Symbol Name Series ISIN Description Lot Tick"


@pytest.mark.parametrize(
    ("words", "symbol"),
    [("RELIANCE", "RELIANCE-EQ"), ("NIFTY DEC FUT", "NIFTY26DECFUT")],
)
def test_a_search_needs_no_segment(
    exchange: Exchange, invoke: Invoke, words: str, symbol: str
) -> None:
    rows = json.loads(invoke("instruments", "--search", words, "--json").stdout)["instruments"]
    assert symbol in [row["symbol"] for row in rows]


def test_filters_narrow_the_search(
    exchange: Exchange, invoke: Invoke, nifty: list[dict[str, object]]
) -> None:
    call = next(row for row in nifty if row["option_type"] == "CE")
    arguments = ("--expiry", f"{call['expiry']}", "--strike", f"{call['strike']}:{call['strike']}")
    shown = invoke(
        "instruments", "nse_fo", "--search", "NIFTY", *arguments, "--option", "ce", "--json"
    )
    found = json.loads(shown.stdout)["instruments"]
    assert [row["symbol"] for row in found] == [call["symbol"]]
    futures = invoke("instruments", "nse_fo", "--search", "NIFTY", "--kind", "FUT", "--json")
    kinds = {row["kind"] for row in json.loads(futures.stdout)["instruments"]}
    assert kinds == {"FUTIDX"}


def test_a_long_list_is_cut_and_says_so(exchange: Exchange, invoke: Invoke) -> None:
    shown = invoke("instruments", "nse_cm", "--limit", "3")
    assert shown.stdout.splitlines()[-1].startswith("3 of ")
    everything = invoke("instruments", "nse_cm", "--limit", "0")
    assert len(everything.stdout.splitlines()) > 40
    assert "--limit" not in everything.stdout


def test_nothing_found_is_said_and_no_failure(exchange: Exchange, invoke: Invoke) -> None:
    shown = invoke("instruments", "nse_cm", "--search", "no such thing")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("none of ")
    assert shown.stdout.endswith(" instruments matches\n")


def test_the_second_command_of_the_day_needs_neither_login_nor_broker(
    cache: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exchange_in_a_thread(Exchange(seed=5, market_makers=False, limits=None)) as opened:
        set_environment(opened, monkeypatch)
        first = invoke("instruments", "nse_cm", "--search", "TCS", "--json")
    assert list(cache.glob("instruments-*-nse_cm.bin"))
    assert not list(cache.glob("login-*"))
    again = invoke("instruments", "nse_cm", "--search", "TCS", "--json")
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    refreshed = invoke("instruments", "nse_cm", "--search", "TCS", "--refresh")
    assert refreshed.exit_code == 1
    assert "cannot connect" in refreshed.everything


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--strike", "high"), "a number, or two as LO:HI"),
        (("--expiry", "soon"), "YYYY-MM-DD"),
        (("--option", "CALL"), "must be one of CE, PE"),
    ],
)
def test_arguments_that_cannot_be_right_are_one_line(
    exchange: Exchange, invoke: Invoke, arguments: tuple[str, str], words: str
) -> None:
    shown = invoke("instruments", "nse_fo", *arguments)
    assert shown.exit_code == 2
    assert words in shown.everything
    assert len(shown.everything.splitlines()) == 1


def test_no_secret_is_shown(exchange: Exchange, invoke: Invoke) -> None:
    shown = invoke("instruments", "nse_cm", "--search", "TCS")
    for secret in (exchange.credentials.consumer_key, exchange.credentials.mpin):
        assert secret not in shown.everything


def test_a_search_needs_no_segment_and_no_option(exchange: Exchange, invoke: Invoke) -> None:
    assert "ITBEES-EQ" in invoke("instruments", "itbees").stdout
    assert "ITBEES-EQ" in invoke("instruments", "nse_cm", "itbees").stdout
    future = json.loads(invoke("instruments", "NIFTY", "FUT", "--json").stdout)["instruments"]
    assert {row["kind"] for row in future} == {"FUTIDX"}
    both = invoke("instruments", "nse_cm", "itbees", "--search", "TCS")
    assert both.exit_code == 2
    wrong = invoke("instruments", "RELAINCE")
    assert "matches: did you mean RELIANCE-EQ (token 2885)?" in wrong.stdout
