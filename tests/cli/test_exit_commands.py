"""bracket, cover, protect, exits and square-off: what is asked, what is shown, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from neo_async.base import logs
from neo_async.cli import prompts
from neo_async.cli.exits_output import read_journal
from neo_async.errors import JournalFailed
from neo_async.exchange import Exchange
from neo_async.execution.journal import Journal
from neo_async.exits.state import ExitReason, PlanState, PlanStatus, PlanTerms
from neo_async.exits.trigger import TriggerState
from neo_async.model.enums import OrderType, Product, Segment, Side, Validity
from neo_async.model.orders import OrderTerms
from tests.cli.conftest import Invoke

BRACKET = (
    *("bracket", "nse_cm", "TCS-EQ", "buy", "5", "--product", "MIS"),
    *("--price", "2100", "--target", "2150", "--stop", "2050"),
)
COVER = (*("cover", "nse_cm", "TCS-EQ", "buy", "5"), "--product", "MIS", "--price", "2100")

needs_signals = pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "can_prompt", lambda: True)


def print_price(exchange: Exchange, price: str, symbol: str = "TCS-EQ") -> None:
    request = urllib.request.Request(
        f"{exchange.admin_url}/price",
        json.dumps({"instrument": f"nse_cm:{symbol}", "price": price}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5):
        pass


@contextlib.contextmanager
def trading(exchange: Exchange, *, entry: str | None, then: str) -> Iterator[None]:
    """Print trades while a command runs: at `entry` while its entry is open, and at `then` while a
    stop is."""
    is_over = threading.Event()

    def trade() -> None:
        while not is_over.wait(0.05):
            orders = [order for order in exchange.market.ledger if not order.status.is_final]
            if any(order.trigger or order.side == "S" for order in orders):
                print_price(exchange, then)
            elif orders and entry is not None:
                print_price(exchange, entry)

    thread = threading.Thread(target=trade)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def buy(exchange: Exchange, invoke: Invoke, quantity: int = 5, product: str = "MIS") -> None:
    """Open a position."""
    print_price(exchange, "2110")
    invoke(
        *("place", "nse_cm", "TCS-EQ", "buy", str(quantity), "--product", product),
        *("--price", "2100", "--yes", "--wait", "0"),
    )
    print_price(exchange, "2095")
    assert net(invoke) == quantity


def whose(exchange: Exchange) -> str:
    return f"for account {exchange.credentials.ucc} at {exchange.login_url}: paper\n"


def net(invoke: Invoke) -> int:
    rows = json.loads(invoke("positions", "--json").stdout)
    return sum(row["net_quantity"] for row in rows)


# --- bracket and cover ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "by", "sold"), [("2160", "target", "at 2,150.00"), ("2040", "stop", "at 20")]
)
def test_a_bracket_runs_until_it_is_exited(
    then: str, by: str, sold: str, exchange: Exchange, invoke: Invoke
) -> None:
    with trading(exchange, entry="2095", then=then):
        outcome = invoke(*BRACKET, "--yes")
    assert outcome.exit_code == 0, outcome.everything
    lines = outcome.stdout.splitlines()
    assert "entering: 0 of 5 bought, stop 2,050.00, target 2,150.00" in lines[0]
    assert any("open: 5 held at 2,1" in line or "open: 5 held at 2,09" in line for line in lines)
    assert f"exited by {by}: 5 bought" in lines[-1]
    assert "5 sold" in lines[-1]
    assert net(invoke) == 0


def test_the_changes_are_json_and_csv_as_well(exchange: Exchange, invoke: Invoke) -> None:
    with trading(exchange, entry="2095", then="2040"):
        lines = invoke(*BRACKET, "--yes", "--json").stdout.splitlines()
        table = invoke(*BRACKET, "--yes", "--csv").stdout
    changes = [json.loads(line) for line in lines]
    first, last = changes[0], changes[-1]
    assert (first["status"], first["side"], first["stop"]) == ("entering", "buy", 2050.0)
    assert (last["status"], last["exited_by"], last["open_quantity"]) == ("exited", "stop", 0)
    assert {change["plan"] for change in changes} == {first["plan"]}
    rows = list(csv.DictReader(io.StringIO(table)))
    assert rows[0].keys() == changes[0].keys()
    assert (rows[-1]["status"], rows[-1]["quantity"]) == ("exited", "5")


@pytest.mark.usefixtures("at_a_terminal")
def test_a_bracket_asks_first(exchange: Exchange, invoke: Invoke, tmp_path: Path) -> None:
    outcome = invoke(*BRACKET, typed="n\n")
    assert outcome.exit_code == 1
    assert (
        "bracket: buy 5 TCS-EQ (nse_cm), type L, price 2100, MIS; stop 2050, target 2150\n"
        in outcome.everything
    )
    assert "in no journal: the plan ends with this command" in outcome.everything
    assert (
        f"account {exchange.credentials.ucc} at {exchange.login_url}: paper" in outcome.everything
    )
    kept = invoke(*BRACKET, "--journal", str(tmp_path / "a.db"), typed="n\n")
    assert f"kept in {tmp_path / 'a.db'}" in kept.everything
    assert exchange.market.ledger == []


@pytest.mark.usefixtures("at_a_terminal")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*BRACKET, "--stop", "2120"), "stop='2120': must be below the price 2100"),
        ((*BRACKET, "--target", "2090"), "target='2090': must be above the price 2100"),
        ((*BRACKET, "--stop", "2050.013"), "stop='2050.013': TCS-EQ has prices in steps of"),
        ((*BRACKET, "--trail", "0"), "trail='0': must be above 0"),
        ((*BRACKET, "--product", "CO"), "--product 'CO': must be one of CNC, MIS, NRML, MTF"),
        ((*BRACKET, "--chase", "61"), "--chase '61': must be a number of seconds from 0.1 to 60"),
        ((*BRACKET[:7], "--price", "2100"), "a plan needs a target, a stop or a trail"),
        (
            (*BRACKET[:7], "--type", "MKT", "--stop", "5", "--target", "4"),
            "above the stop 5",
        ),
        (COVER, "stop=None: a cover order needs a stop, or a trail"),
        ((*COVER, "--stop", "2050", "--until", "soon"), "--until 'soon': must be a day"),
        ((*BRACKET, "--journal", "/nonexistent/a.db"), "there is no directory /nonexistent"),
        (("bracket", "nse_cm", "TSC-EQ", *BRACKET[3:]), "did you mean TCS-EQ"),
        ((*BRACKET, "--csv", "--json"), "--csv and --json exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anybody_is_asked(
    arguments: tuple[str, ...], message: str, exchange: Exchange, invoke: Invoke
) -> None:
    outcome = invoke(*arguments, typed="y\n")
    assert "Send it?" not in outcome.everything
    assert message in outcome.everything
    assert outcome.exit_code == 2
    assert exchange.market.ledger == []


def test_an_entry_that_is_rejected_exits_with_1(exchange: Exchange, invoke: Invoke) -> None:
    outcome = invoke(
        *("cover", "nse_cm", "TCS-EQ", "sell", "500", "--product", "CNC"),
        *("--price", "2100", "--stop", "2150", "--yes"),
    )
    assert outcome.exit_code == 1
    assert "Check holdings" in outcome.stdout


def test_a_cover_is_exited_by_its_stop(exchange: Exchange, invoke: Invoke) -> None:
    with trading(exchange, entry="2095", then="2040"):
        outcome = invoke(*COVER, "--stop", "2050", "--yes")
    assert outcome.exit_code == 0, outcome.everything
    assert "exited by stop" in outcome.stdout
    assert "target" not in outcome.stdout


def test_the_level_of_the_log_is_put_back(exchange: Exchange, invoke: Invoke) -> None:
    log = logging.getLogger(logs.EXITS)
    with trading(exchange, entry="2095", then="2040"):
        outcome = invoke(*BRACKET, "--yes")
    assert "NeoClient(journal" not in outcome.everything
    assert log.level == logging.NOTSET


# --- interruptions --------------------------------------------------------------------------------


def interrupted(arguments: tuple[str, ...], *, at: str) -> tuple[int, str]:
    """Return exit code and stderr of a command that is interrupted once it has shown `at`."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "neo_async", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if at in line:
                process.send_signal(signal.SIGINT)
                break
        _, printed = process.communicate(timeout=20)
    return process.returncode, printed


@needs_signals
def test_an_interruption_says_that_the_entry_stays(exchange: Exchange) -> None:
    code, printed = interrupted((*BRACKET, "--yes"), at="entering")
    (entry,) = exchange.market.ledger
    assert code == 130
    assert f"the entry {entry.number} stays open at the broker, and what fills of it" in printed
    assert "the plan ends here, as it is in no journal, and nothing watches its target" in printed
    assert not entry.status.is_final


@needs_signals
def test_a_plan_goes_on_from_its_journal(
    exchange: Exchange, invoke: Invoke, tmp_path: Path
) -> None:
    journal = tmp_path / "orders.db"
    kept = ("--journal", str(journal))
    with trading(exchange, entry="2095", then="2099"):
        code, printed = interrupted((*BRACKET, *kept, "--yes"), at="5 held")
    (plan,) = json.loads(invoke("exits", *kept, "--json").stdout)
    assert code == 130
    assert f"neo-async exits --journal {journal} --resume" in printed
    assert (plan["account"], plan["status"]) == (exchange.credentials.ucc, "open")
    with trading(exchange, entry=None, then="2040"):
        outcome = invoke("exits", *kept, "--resume")
    assert outcome.exit_code == 0, outcome.everything
    assert "exited by stop" in outcome.stdout
    assert net(invoke) == 0
    assert invoke("exits", *kept).stdout == f"no open plans in {journal}\n"
    assert "exited by stop" in invoke("exits", *kept, "--all").stdout
    assert "no open plans" in invoke("exits", *kept, "--resume").everything


# --- protect --------------------------------------------------------------------------------------


def test_a_position_is_protected(exchange: Exchange, invoke: Invoke) -> None:
    buy(exchange, invoke)
    with trading(exchange, entry=None, then="2040"):
        outcome = invoke("protect", "nse_cm", "TCS-EQ", "--stop", "2050", "--yes")
    assert outcome.exit_code == 0, outcome.everything
    assert "open: 5 held, stop 2,050.00" in outcome.stdout
    assert net(invoke) == 0


@pytest.mark.usefixtures("at_a_terminal")
def test_protect_shows_the_position_and_checks_before_it_asks(
    exchange: Exchange, invoke: Invoke
) -> None:
    nothing = invoke("protect", "nse_cm", "TCS-EQ", "--stop", "2050", typed="y\n")
    assert (nothing.exit_code, "TCS-EQ': has no open position" in nothing.everything) == (2, True)
    buy(exchange, invoke)
    outcome = invoke("protect", "nse_cm", "TCS-EQ", "--stop", "2050", typed="n\n")
    assert "protect 5 TCS-EQ (nse_cm) MIS, bought at 2," in outcome.everything
    wrong = invoke("protect", "nse_cm", "TCS-EQ", "--stop", "2200", typed="y\n")
    assert "must be below the price" in wrong.everything
    assert "Send it?" not in wrong.everything
    other = invoke("protect", "nse_cm", "TCS-EQ", "--stop", "2050", "--product", "CNC", typed="y\n")
    assert "has no open position of CNC" in other.everything
    buy_carried = invoke(
        *("place", "nse_cm", "TCS-EQ", "buy", "2", "--product", "CNC", "--price", "2100", "--yes")
    )
    assert buy_carried.exit_code == 0
    print_price(exchange, "2095")
    several = invoke("protect", "nse_cm", "TCS-EQ", "--stop", "2050", typed="y\n")
    assert "TCS-EQ is open in" in several.everything
    assert several.exit_code == 2
    assert len(exchange.market.ledger) == 2


# --- the plans of a journal -----------------------------------------------------------------------


def plan_state(name: str, **fields: object) -> PlanState:
    terms = PlanTerms(
        segment=Segment.NSE_CM,
        symbol="TCS-EQ",
        instrument="nse_cm|11536",
        side=Side.BUY,
        product=Product.MIS,
        tick=Decimal("0.05"),
        largest=1000,
        target=Decimal("2150"),
        stop=Decimal("2050"),
    )
    state = PlanState(
        id=name,
        terms=terms,
        day=date(2026, 11, 23),
        status=PlanStatus.OPEN,
        entry_quantity=5,
        entry_filled=5,
        stop=Decimal("2050"),
        entry_price=Decimal("2100.05"),
    )
    for field, value in fields.items():
        setattr(state, field, value)
    return state


def trigger_state() -> TriggerState:
    order = OrderTerms(
        segment=Segment.NSE_CM,
        symbol="INFY-EQ",
        side=Side.SELL,
        quantity=1200,
        product=Product.CNC,
        order_type=OrderType.LIMIT,
        price=Decimal("1500"),
        trigger=None,
        validity=Validity.DAY,
        disclosed_quantity=0,
        amo=False,
    )
    return TriggerState(
        id="trigg",
        instrument="nse_cm|1594",
        above=Decimal("1499.5"),
        order=order,
        until=date(2026, 12, 31),
    )


async def written(
    path: Path, states: list[PlanState | TriggerState], ucc: str = "ABC12"
) -> Journal:
    """Return an open journal that holds these plans."""
    journal = Journal(path, ucc=ucc)
    await journal.start()
    for state in states:
        text = msgspec.json.encode(state).decode()
        journal.write_plan(state.id, text, is_final=state.status.is_final)
    async with asyncio.timeout(5):
        while len([one for one in read_journal(path) if one.account == ucc]) < len(states):  # noqa: ASYNC110 - it is read as another process does
            await asyncio.sleep(0.01)
    return journal


async def test_the_plans_of_a_journal_are_shown_while_it_is_written(
    invoke: Invoke, tmp_path: Path, narrow: None
) -> None:
    path = tmp_path / "a.db"
    ended = plan_state("ended", status=PlanStatus.EXITED, exited_by=ExitReason.STOP)
    states = [plan_state("first", reason="the stop was refused: RMS"), trigger_state(), ended]
    journal = await written(path, states)
    try:
        shown = invoke("exits", "--journal", str(path))
        everything = json.loads(invoke("exits", "--journal", str(path), "--all", "--json").stdout)
        table = invoke("exits", "--journal", str(path), "--csv").stdout
    finally:
        await journal.close()
    plans, triggers = shown.stdout.split("\n\n")
    assert "first" in plans
    assert "5/5" in plans
    assert "first: the stop was refused: RMS" in plans
    assert "ended" not in shown.stdout
    assert "above 1,499.50" in triggers
    assert "sell 1,200 INFY-EQ" in triggers
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    assert [row["kind"] for row in everything] == ["plan", "trigger", "plan"]
    assert everything[0]["unprotected"] == 5
    assert everything[1]["until"] == "2026-12-31"
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["plan"], row["side"]) for row in rows] == [("first", "buy"), ("trigg", "sell")]


async def test_accounts_are_distinguished(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for ucc in ("ABC12", "XYZ99"):
        await (await written(path, [plan_state(f"of{ucc[0].lower()}xx")], ucc)).close()
    shown = invoke("exits", "--journal", str(path)).stdout
    assert "ABC12" in shown
    assert "XYZ99" in shown


def test_what_is_no_journal_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    missing = invoke("exits", "--journal", str(tmp_path / "no.db"))
    assert (missing.exit_code, "there is no such file" in missing.everything) == (2, True)
    assert not (tmp_path / "no.db").exists()
    text = tmp_path / "text.db"
    text.write_text("no database\n" * 99)
    other = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(other)) as file:
        file.execute("CREATE TABLE orders (id INTEGER)")
    for path, why in ((text, "file is not a database"), (other, "it is not a journal")):
        outcome = invoke("exits", "--journal", str(path))
        assert outcome.exit_code == 1
        assert outcome.everything == f"neo-async: the journal {path} cannot be read: {why}\n"


async def test_a_plan_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.db", ucc="ABC12")
    await journal.start()
    journal.write_plan("bad12", '{"type": "plan"}', is_final=False)
    await journal.close()
    with pytest.raises(JournalFailed, match="a plan of account ABC12 cannot be read"):
        read_journal(tmp_path / "a.db")


# --- square-off -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_a_terminal")
def test_square_off_shows_what_it_closes_and_asks(exchange: Exchange, invoke: Invoke) -> None:
    buy(exchange, invoke)
    refused = invoke("square-off", typed="n\n")
    assert refused.exit_code == 1
    assert "sell 5 TCS-EQ (nse_cm) MIS, last 2,095.00, P&L" in refused.everything
    assert (
        f"account {exchange.credentials.ucc} at {exchange.login_url}: paper" in refused.everything
    )
    assert "Close all of it at the market?" in refused.everything
    assert len(exchange.market.ledger) == 1
    with trading(exchange, entry=None, then="2094"):
        outcome = invoke("square-off", typed="y\n")
    assert outcome.exit_code == 0, outcome.everything
    assert "TCS-EQ" in outcome.stdout
    assert net(invoke) == 0
    again = invoke("square-off", "--yes")
    assert again.exit_code == 0
    assert "nothing is open" in again.everything


def test_square_off_asks_nobody_without_a_terminal(exchange: Exchange, invoke: Invoke) -> None:
    buy(exchange, invoke)
    outcome = invoke("square-off")
    assert outcome.exit_code == 2
    assert "--yes sends without asking" in outcome.everything
    assert net(invoke) == 5


def test_what_is_left_exits_with_1(exchange: Exchange, invoke: Invoke) -> None:
    buy(exchange, invoke)
    # There is no buyer: there are no market makers, and no trade prints.
    outcome = invoke("square-off", "--yes", "--timeout", "4", "--json")
    assert outcome.exit_code == 1
    (row,) = json.loads(outcome.stdout)
    assert (row["symbol"], row["left"]) == ("TCS-EQ", 5)
    assert row["reason"]


def test_square_off_closes_what_is_chosen(exchange: Exchange, invoke: Invoke) -> None:
    buy(exchange, invoke)
    for which in (("--product", "CNC"), ("--symbol", "INFY-EQ"), ("--segment", "nse_fo")):
        outcome = invoke("square-off", *which, "--yes", "--json")
        assert (outcome.exit_code, json.loads(outcome.stdout)) == (0, [])
        assert f"of {which[1]}" in " ".join(outcome.everything.split())
    with trading(exchange, entry=None, then="2094"):
        outcome = invoke("square-off", "--symbol", "tcs-eq", "--yes", "--csv")
    (row,) = csv.DictReader(io.StringIO(outcome.stdout))
    assert (row["closed"], row["left"]) == ("5", "0")
    assert net(invoke) == 0


def test_holdings_are_sold_on_demand(exchange: Exchange, invoke: Invoke) -> None:
    held = json.loads(invoke("holdings", "--json").stdout)[0]
    assert "nothing is open" in invoke("square-off", "--yes").everything
    symbol = f"{held['symbol'].removesuffix('-EQ')}-EQ"
    with trading(exchange, entry=None, then="2094"):
        outcome = invoke("square-off", "--holdings", "--symbol", symbol, "--yes", "--timeout", "5")
    assert symbol in outcome.everything
    (order, *_) = exchange.market.ledger
    assert (order.side, order.quantity) == ("S", held["sellable_quantity"])
