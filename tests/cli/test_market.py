"""quote, chain and candles, against a far end that has nothing else."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from neo_async.exchange import Exchange
from tests.cli.conftest import Invoke, exchange_in_a_thread, one_line_a_row, set_environment
from tests.data_broker import UPSTREAM, DataBroker
from tests.fake_servers import CREDENTIALS, Reply

PAYLOADS = Path(__file__).parents[1] / "payloads"

CANDLES = ("candles", "nse_cm:1333", "60min", "--from", "2026-08-20", "--to", "2026-08-21")


@pytest.fixture
def broker(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataBroker]:
    """Served, and the environment that leads commands to it."""
    with exchange_in_a_thread(cast(Exchange, DataBroker())) as opened:
        broker = cast(DataBroker, opened)
        for name, value in {
            "NEO_LOGIN_URL": broker.url,
            "NEO_CA_FILE": "",
            "NEO_CONSUMER_KEY": CREDENTIALS.consumer_key,
            "NEO_MOBILE_NUMBER": CREDENTIALS.mobile_number,
            "NEO_UCC": CREDENTIALS.ucc,
            "NEO_MPIN": CREDENTIALS.mpin,
            "NEO_TOTP_SECRET": CREDENTIALS.totp_secret,
        }.items():
            monkeypatch.setenv(name, value)
        yield broker


def documented(name: str) -> Any:
    return lambda number, path: Reply((PAYLOADS / f"{name}.json").read_bytes())


def test_quotes_are_a_table_with_what_there_is(broker: DataBroker, invoke: Invoke) -> None:
    broker.unknown = {"nse_cm|7"}
    outcome = invoke("quote", "nse_cm:1333", "nse_cm|7", "nse_cm:nifty 50", "--filter", "OHLC")
    assert outcome.exit_code == 0
    heading, _, bank, index, note = outcome.stdout.splitlines()
    shown = "Instrument Symbol Time Last Change % Open High Low Close Volume"
    assert " ".join(heading.split()) == shown
    assert bank.split()[:5] == ["nse_cm|1333", "SYMBOL1333-EQ", "13:34:17", "1,333.50", "-8.40"]
    assert "nse_cm|Nifty 50" in index
    assert note.startswith("nse_cm|7: not in the broker's answer")
    assert broker.raw[0].endswith("/nse_cm|1333,nse_cm|7,nse_cm|Nifty%2050/ohlc")


def test_quotes_for_machines_name_what_is_missing(broker: DataBroker, invoke: Invoke) -> None:
    broker.unknown = {"nse_cm|7"}
    outcome = invoke("quote", "nse_cm:1333", "nse_cm:7", "--json")
    content = json.loads(outcome.stdout)
    (quote,) = content["quotes"]
    assert (quote["instrument"], quote["last_price"], quote["bids"]) == ("nse_cm|1333", 1333.5, [])
    assert quote["last_update_time"] == 1782374657
    assert list(content["missing"]) == ["nse_cm|7"]


def test_the_documented_quote_shows_bid_and_ask(broker: DataBroker, invoke: Invoke) -> None:
    broker.instead = documented("quotes")
    heading, _, row = invoke("quote", "nse_cm:1333").stdout.splitlines()
    assert {"Bid", "Ask", "Circuit", "Year"} <= set(heading.split())
    assert {"801.60", "801.65", "30,043,533", "+8.40", "713.90", "872.50"} <= set(row.split())


def test_what_traders_want_most_fits_into_80_columns(
    broker: DataBroker, invoke: Invoke, narrow: None
) -> None:
    broker.instead = documented("quotes")
    assert one_line_a_row(invoke("quote", "nse_cm:1333").stdout) == (
        "Symbol Last Change % Close Bid Ask Volume"
    )
    broker.instead = documented("futures_chain")
    futures = invoke("chain", "nse_fo", "NIFTY", "--futures").stdout.partition("\n")[2]
    assert one_line_a_row(futures) == "Symbol Expiry Last Volume OI Change of OI"


def test_depth_is_shown_level_by_level(broker: DataBroker, invoke: Invoke) -> None:
    broker.instead = documented("quotes")
    title, heading, _, best = invoke(
        "quote", "nse_cm:1333", "--filter", "depth"
    ).stdout.splitlines()
    assert title.startswith("nse_cm|1333 ")
    assert heading.split() == ["Orders", "Quantity", "Bid", "Ask", "Quantity", "Orders"]
    assert best.split()[2:4] == ["801.60", "801.65"]


def test_exit_codes_tell_nothing_found_from_nonsense(broker: DataBroker, invoke: Invoke) -> None:
    broker.unknown = {"nse_cm|7"}
    assert invoke("quote", "nse_cm:7").exit_code == 1
    outcome = invoke("quote", "nse:11536")
    assert (outcome.exit_code, outcome.everything.count("\n")) == (2, 1)
    assert outcome.everything.startswith(
        "neo-async: INSTRUMENT 'nse:11536': must be such as nse_cm:2885, nse_cm:RELIANCE-EQ"
    )
    broker.instead = lambda number, path: UPSTREAM
    outcome = invoke("quote", "nse_cm:1")
    assert (outcome.exit_code, outcome.everything.count("\n")) == (1, 1)
    assert "Failed to call upstream quote API" in outcome.everything


def test_a_chain_has_its_strikes_in_the_middle(broker: DataBroker, invoke: Invoke) -> None:
    broker.instead = documented("option_chain")
    outcome = invoke("chain", "nse_fo", "NIFTY", "--expiry", "2026-06-23", "--count", "10")
    title, heading, _, row = outcome.stdout.splitlines()
    assert title == "NIFTY 2026-06-23, lots of 65"
    assert " ".join(heading.split()) == "OI Volume Change Call Strike Put Change Volume OI"
    assert row.split() == ["10,715,645", "225,431,505", "+67.05", "166.75", "22,250"]
    assert broker.raw[0].endswith(
        "?exchange=nse_fo&underlying=NIFTY&instrument_type=option&expiry=2026-06-23&count=10"
    )
    content = json.loads(invoke("chain", "NSE_FO", "NIFTY", "--json").stdout)
    assert content["expiry"] == "2026-06-23"
    assert content["rows"][0]["call"]["symbol"] == "NIFTY26JUN22250CE"
    assert content["rows"][0]["put"] is None


def test_futures_are_listed_by_expiry(broker: DataBroker, invoke: Invoke) -> None:
    broker.instead = documented("futures_chain")
    title, _, _, row = invoke("chain", "nse_fo", "NIFTY", "--futures").stdout.splitlines()
    assert title == "NIFTY, lots of 65"
    assert row.split()[:3] == ["NIFTY26JULFUT", "2026-07-31", "24,485.20"]
    content = json.loads(invoke("chain", "nse_fo", "NIFTY", "--futures", "--json").stdout)
    assert content["rows"][0]["open_interest"] == 13930930


def test_an_unknown_underlying_is_one_line(broker: DataBroker, invoke: Invoke) -> None:
    for extra in ((), ("--futures",)):
        outcome = invoke("chain", "nse_fo", "NIFTI", *extra)
        assert outcome.exit_code == 1
        assert outcome.everything.startswith("neo-async: Invalid instrument/code")
    broker.instead = lambda number, path: Reply({"data": {"common_data": {}, "call": []}})
    assert invoke("chain", "nse_fo", "OLD").everything == "the broker lists none for OLD\n"


def test_an_expiry_that_is_none_is_answered_with_those_there_are(
    invoke: Invoke, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exchange_in_a_thread(Exchange(seed=5, market_makers=False, limits=None)) as exchange:
        set_environment(exchange, monkeypatch)
        listed = json.loads(invoke("chain", "nse_fo", "NIFTY", "--count", "10", "--json").stdout)
        for extra in ((), ("--futures",)):
            outcome = invoke("chain", "nse_fo", "NIFTY", "--expiry", "2020-01-01", *extra)
            assert outcome.exit_code == 2
            assert "expiry=2020-01-01: NIFTY has 20" in outcome.everything
        outcome = invoke("chain", "nse_fo", "NIFTY", "--expiry", "2020-01-01")
        assert f"NIFTY has {listed['expiry']}, " in outcome.everything


def test_candles_are_a_table(broker: DataBroker, invoke: Invoke) -> None:
    heading, _, *rows = invoke(*CANDLES).stdout.splitlines()
    assert heading.split() == ["Time", "Open", "High", "Low", "Close", "Volume"]
    assert len(rows) == 12
    assert rows[0].split()[:2] == ["2026-08-20", "09:15"]
    empty = invoke("candles", "nse_cm:1", "D", "--from", "2026-08-22", "--to", "2026-08-23")
    assert empty.everything == "no candles in this range\n"
    (day,) = invoke(
        "candles", "nse_cm:1", "D", "--from", "2026-08-20", "--to", "2026-08-20"
    ).stdout.splitlines()[2:]
    assert day.split()[0] == "2026-08-20"
    assert ":" not in day


def test_candles_go_to_other_programs(broker: DataBroker, invoke: Invoke) -> None:
    rows = list(csv.DictReader(io.StringIO(invoke(*CANDLES, "--csv").stdout)))
    candles = json.loads(invoke(*CANDLES, "--json").stdout)
    assert len(rows) == len(candles) == 12
    assert rows[0]["time"] == candles[0]["time"] == "2026-08-20T09:15:00+05:30"
    for row, candle in zip(rows, candles, strict=True):
        assert list(row) == list(candle)
        assert (float(row["close"]), int(row["volume"])) == (candle["close"], candle["volume"])
    assert invoke(*CANDLES, "--json", "--csv").exit_code == 2


def test_long_ranges_are_fetched_whole_and_without_a_bar_in_a_pipe(
    broker: DataBroker, invoke: Invoke
) -> None:
    long = ("candles", "nse_cm:1333", "D", "--from", "2025-01-01", "--to", "2026-01-31", "--csv")
    outcome = invoke(*long)
    assert len(broker.queries) == 3
    assert outcome.everything == outcome.stdout
    assert len(outcome.stdout.splitlines()) == 1 + 283


def test_a_bar_shows_how_far_a_long_range_is(
    broker: DataBroker, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    long = ("candles", "nse_cm:1333", "D", "--from", "2025-01-01", "--to", "2026-01-31", "--csv")
    outcome = invoke(*long)
    assert "candles" in outcome.everything
    assert "100%" in outcome.everything
    assert "candles" not in outcome.stdout


def test_dates_and_intervals_are_checked(broker: DataBroker, invoke: Invoke) -> None:
    assert invoke("candles", "nse_cm:1", "2min", "--from", "2026-08-20").exit_code == 2
    assert invoke("candles", "nse_cm:1", "D", "--from", "20.8.2026").exit_code == 2
    assert invoke("candles", "mcx_fo:1", "d", "--from", "2026-08-20").exit_code == 2
    assert invoke("chain", "nse_fo", "NIFTY", "--count", "7").exit_code == 2
    assert broker.raw == []


@pytest.fixture
def exchange(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    with exchange_in_a_thread(Exchange(seed=5, market_makers=False, limits=None)) as opened:
        set_environment(opened, monkeypatch)
        yield opened


@pytest.mark.usefixtures("exchange")
def test_reports_take_an_instrument_by_any_name(invoke: Invoke) -> None:
    for name in ("TCS", "TCS-EQ", "nse_cm:TCS-EQ", "nse_cm|11536"):
        (quote,) = json.loads(invoke("quote", name, "--json").stdout)["quotes"]
        assert (quote["instrument"], quote["symbol"]) == ("nse_cm|11536", "TCS-EQ")
        candles = invoke("candles", name, "D", "--from", "2026-11-01", "--csv")
        assert candles.stdout.startswith("time,open")
    (index,) = json.loads(invoke("quote", "NIFTY", "--json").stdout)["quotes"]
    assert index["instrument"] == "nse_cm|Nifty 50"
    for words in (("NIFTY",), ("nse_fo", "NIFTY"), ("nse_cm:Nifty 50",), ("nse_fo:NIFTY",)):
        assert json.loads(invoke("chain", *words, "--json").stdout)["underlying"] == "NIFTY"
    futures = invoke("chain", "CRUDEOIL", "--futures", "--json")
    assert json.loads(futures.stdout or "{}").get("rows"), futures.everything


@pytest.mark.usefixtures("exchange")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("quote", "ITBEEX"), "did you mean ITBEES-EQ (token 19084)?"),
        (("chain", "nse_fo", "NIFTI"), "nse_fo has no contracts of it: did you mean NIFTY?"),
        (("chain", "FOO"), "nse_fo has no contracts of it"),
        (("chain", "nse_fo", "NIFTY", "2026-12-01"), "must be an underlying"),
        (("candles", "nse_cm|999", "D", "--from", "2026-11-01"), "nse_cm has no token 999 today"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(
    arguments: tuple[str, ...], message: str, invoke: Invoke
) -> None:
    assert invoke("instruments", "nse_cm", "TCS").exit_code == 0
    outcome = invoke(*arguments)
    assert (outcome.exit_code, outcome.everything.count("\n")) == (2, 1)
    assert message in outcome.everything
