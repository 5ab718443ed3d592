"""place, modify, cancel and margin: what is asked, what is sent, what is reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from neo_async.cli import prompts
from neo_async.errors import NotSent
from neo_async.exchange import Exchange
from neo_async.exchange.rest.broker import Broker
from neo_async.exchange.rest.replies import Reply
from neo_async.exchange.rest.services import Call
from neo_async.market_data.instruments import Instruments
from tests.cli.conftest import Invoke

PLACE = ("place", "nse_cm", "TCS-EQ", "buy", "5", "--product", "MIS", "--price", "2100")


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "can_prompt", lambda: True)


def place(invoke: Invoke) -> str:
    """An order that waits in the market, by number."""
    return str(json.loads(invoke(*PLACE, "--yes", "--json").stdout)["number"])


def test_placing_shows_what_became_of_the_order(exchange: Exchange, invoke: Invoke) -> None:
    outcome = invoke(*PLACE, "--yes")
    assert outcome.exit_code == 0
    (order,) = exchange.market.ledger
    assert order.number in outcome.stdout
    assert "open" in outcome.stdout
    assert (order.quantity, order.price) == (5, 2100_00)


def test_a_rejected_order_shows_why_and_exits_with_1(exchange: Exchange, invoke: Invoke) -> None:
    outcome = invoke(
        "place", "nse_cm", "TCS-EQ", "sell", "500", "--product", "CNC", "--price", "2100", "--yes"
    )
    assert outcome.exit_code == 1
    assert "Check holdings, 500 to sell and 100 free" in outcome.stdout


def test_nothing_is_sent_where_nobody_can_be_asked(exchange: Exchange, invoke: Invoke) -> None:
    outcome = invoke(*PLACE)
    assert outcome.exit_code == 2
    assert "--yes" in outcome.everything
    assert exchange.market.ledger == []


@pytest.mark.usefixtures("at_a_terminal")
def test_no_answer_sends_nothing(exchange: Exchange, invoke: Invoke) -> None:
    outcome = invoke(*PLACE, typed="")
    assert outcome.exit_code == 1
    assert "\nnothing was sent\n" in outcome.everything
    assert exchange.market.ledger == []


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_an_interruption_says_that_the_order_may_be_on_its_way(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, may_answer = threading.Event(), threading.Event()
    answer = Broker.answer

    def answer_late(broker: Broker, call: Call) -> Reply:
        if call.path.endswith("/place"):
            arrived.set()
            may_answer.wait(10)
        return answer(broker, call)

    monkeypatch.setattr(Broker, "answer", answer_late)
    command = [sys.executable, "-m", "neo_async", *PLACE, "--yes"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert arrived.wait(10)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=10)
    may_answer.set()
    assert process.returncode == 130
    assert told == (
        "interrupted: the order may have been sent; neo-async orders shows its outcome\n"
    )


@pytest.mark.usefixtures("at_a_terminal")
def test_the_question_says_what_goes_to_whom(exchange: Exchange, invoke: Invoke) -> None:
    outcome = invoke(*PLACE, typed="n\n")
    assert outcome.exit_code == 1
    assert "place buy 5 TCS-EQ (nse_cm), type L, price 2100, MIS DAY" in outcome.everything
    assert f"account {exchange.credentials.ucc} at {exchange.login_url}" in outcome.everything
    assert "nothing was sent" in outcome.everything
    assert exchange.market.ledger == []

    assert invoke(*PLACE, typed="y\n").exit_code == 0
    assert len(exchange.market.ledger) == 1


@pytest.mark.usefixtures("at_a_terminal")
def test_a_malformed_order_is_refused_before_anybody_is_asked(
    exchange: Exchange, invoke: Invoke
) -> None:
    outcome = invoke("place", "nse_cm", "TCS-EQ", "buy", "5", "--product", "MIS", typed="y\n")
    assert outcome.exit_code == 2
    assert (
        outcome.everything
        == "neo-async: price=None: order type L needs a limit price; MKT is the type without one\n"
    )


def test_modify_changes_what_is_given(exchange: Exchange, invoke: Invoke) -> None:
    number = place(invoke)
    outcome = invoke("modify", number, "--price", "2090.5", "--quantity", "7", "--yes")
    assert outcome.exit_code == 0
    (order,) = exchange.market.ledger
    assert (order.quantity, order.price) == (7, 2090_50)
    assert "2,090.50" in outcome.stdout


def test_a_change_that_the_broker_refuses_exits_with_1(exchange: Exchange, invoke: Invoke) -> None:
    outcome = invoke("modify", place(invoke), "--price", "9000", "--yes")
    assert outcome.exit_code == 1
    assert "circuit limit" in outcome.stdout
    assert exchange.market.ledger[0].price == 2100_00


def test_modify_without_a_change_is_a_usage_error(exchange: Exchange, invoke: Invoke) -> None:
    outcome = invoke("modify", "261121000000001", "--yes")
    assert outcome.exit_code == 2
    assert "nothing to change" in outcome.everything


@pytest.mark.usefixtures("at_a_terminal")
def test_cancel_asks_with_the_order_as_it_stands(exchange: Exchange, invoke: Invoke) -> None:
    number = place(invoke)
    outcome = invoke("cancel", number, typed="y\n")
    assert outcome.exit_code == 0
    assert (
        f"cancel order {number}: buy 5 TCS-EQ (nse_cm) at 2,100.00, MIS DAY, open, 0 filled"
        in outcome.everything
    )
    assert exchange.market.ledger[0].status.value == "cancelled"

    late = invoke("cancel", number, "--yes")
    assert late.exit_code == 1
    assert late.everything == "neo-async: order is completed (code 1021, HTTP 200)\n"


@pytest.mark.usefixtures("at_a_terminal")
def test_all_that_is_open_is_cancelled_after_it_was_shown(
    exchange: Exchange, invoke: Invoke
) -> None:
    numbers = [place(invoke), place(invoke)]
    refused = invoke("cancel", "--all", typed="n\n")
    assert refused.exit_code == 1
    assert all(f"cancel order {number}: buy 5 TCS-EQ" in refused.everything for number in numbers)
    outcome = invoke("cancel", "--all", typed="y\n")
    assert outcome.exit_code == 0
    assert all(number in outcome.stdout for number in numbers)
    assert [order.status.value for order in exchange.market.ledger] == ["cancelled"] * 2
    again = invoke("cancel", "--all", "--yes")
    assert (again.exit_code, again.everything) == (0, "no order was open\n")
    assert json.loads(invoke("cancel", "--all", "--yes", "--json").stdout) == []


@pytest.mark.parametrize("arguments", [(), ("261121000000001", "--all")])
def test_cancel_takes_a_number_or_all(
    arguments: tuple[str, ...], exchange: Exchange, invoke: Invoke
) -> None:
    outcome = invoke("cancel", *arguments, "--yes")
    assert outcome.exit_code == 2
    assert outcome.everything == "neo-async: give one order's number, or --all\n"


def test_an_order_number_that_is_not_known_is_an_error(exchange: Exchange, invoke: Invoke) -> None:
    outcome = invoke("cancel", "999", "--yes")
    assert outcome.exit_code == 1
    assert "there is no order 999" in outcome.everything
    outcome = invoke("cancel", "abc", "--yes")
    assert outcome.exit_code == 2


def test_an_unknown_segment_is_a_usage_error(exchange: Exchange, invoke: Invoke) -> None:
    outcome = invoke("place", "NSE", "TCS-EQ", "buy", "5", "--product", "MIS")
    assert outcome.exit_code == 2
    assert "nse_cm" in outcome.everything


def test_margin_places_nothing(exchange: Exchange, invoke: Invoke) -> None:
    arguments = ("margin", "nse_cm", "11536", "buy", "10", "--product", "CNC", "--price", "2100")
    answer = json.loads(invoke(*arguments, "--json").stdout)
    assert answer["sufficient"]
    assert answer["order"] == 21_000.0
    assert "21,000.00" in invoke(*arguments).stdout
    assert exchange.market.ledger == []


# --- instruments by any name ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "instrument",
    [("nse_cm", "TCS-EQ"), ("nse_cm:TCS-EQ",), ("nse_cm:11536",), ("TCS-EQ",), ("tcs",)],
)
def test_an_order_names_its_instrument_in_any_way(
    instrument: tuple[str, ...], exchange: Exchange, invoke: Invoke
) -> None:
    terms = ("BUY", "5", "--product", "mis", "--price", "2100", "--yes", "--json")
    outcome = invoke("place", *instrument, *terms)
    assert outcome.exit_code == 0, outcome.everything
    row = json.loads(outcome.stdout)
    assert (row["symbol"], row["side"], row["reject_reason"]) == ("TCS-EQ", "buy", "")
    margin = invoke("margin", *instrument, *terms[:-2])
    assert "2,100.00" in margin.stdout, margin.everything


@pytest.mark.parametrize(
    ("product", "order_type", "validity", "codes"),
    [
        ("Delivery", "Limit", "immediate-or-cancel", ("CNC", "L", "IOC")),
        ("cash and carry", "l", "day", ("CNC", "L", "DAY")),
        ("intraday", "limit", "ioc", ("MIS", "L", "IOC")),
        ("carry-forward", "Limit", "Day", ("NRML", "L", "DAY")),
    ],
)
def test_terms_are_taken_in_words(
    product: str,
    order_type: str,
    validity: str,
    codes: tuple[str, ...],
    exchange: Exchange,
    invoke: Invoke,
) -> None:
    words = ("--product", product, "--type", order_type, "--validity", validity)
    outcome = invoke("place", "TCS", "Buy", "5", *words, "--price", "2100", "--yes", "--json")
    row = json.loads(outcome.stdout)
    assert (row["product"], row["order_type"], row["validity"]) == codes


def test_a_contract_is_ordered_in_words(exchange: Exchange, invoke: Invoke) -> None:
    (first, *_) = json.loads(invoke("instruments", "NIFTY", "24500", "CE", "--json").stdout)[
        "instruments"
    ]
    words = ("NIFTY", first["expiry"], "24500", "CE")
    terms = ("buy", "65", "--product", "NRML", "--type", "market", "--yes", "--json")
    for instrument in ((" ".join(words),), words, ("nse_fo", *words)):
        outcome = invoke("place", *instrument, *terms)
        assert json.loads(outcome.stdout)["symbol"] == first["symbol"], outcome.everything


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nse_cm", "ITBEES", "buy", "10"), "did you mean ITBEES-EQ (token 19084)?"),
        (("ITBEEX", "buy", "10"), "did you mean ITBEES-EQ (token 19084)?"),
        (("NIFTY", "buy", "1"), "is an index, which has no orders"),
        (("nse_cm", "NIFTY", "buy", "1"), "is an index, which has no orders"),
        (("nse_cm:26000", "buy", "1"), "is an index, which has no orders"),
        (("bse_cm:SENSEX", "buy", "1"), "is an index, which has no orders"),
        (("nse_cm:999", "buy", "10"), "no such token in nse_cm"),
        (("NIFTY 24525 CE", "buy", "65"), "the nearest are NIFTY"),
        (("NSE", "TCS-EQ", "buy", "10"), "NSE alone could be nse_cm or nse_fo"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one_and_not_sent(
    words: tuple[str, ...], message: str, exchange: Exchange, invoke: Invoke
) -> None:
    outcome = invoke("place", *words, "--product", "NRML", "--price", "2100", "--yes")
    assert (outcome.exit_code, outcome.everything.count("\n")) == (2, 1)
    assert message in outcome.everything
    assert exchange.market.ledger == []


def test_tick_and_lot_are_checked_before_anything_is_asked(
    exchange: Exchange, invoke: Invoke
) -> None:
    outcome = invoke("place", "TCS", "buy", "5", "--product", "MIS", "--price", "2100.01")
    assert "TCS-EQ has prices in steps of" in outcome.everything
    outcome = invoke("place", "TCS", "buy", "5", "--product", "MIS", "--price", "2100.003")
    assert "has more than 2 decimals, which no price of this segment has" in outcome.everything


def test_without_a_scrip_master_the_broker_checks_the_symbol(
    exchange: Exchange, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> object:
        raise NotSent("no network")

    monkeypatch.setattr(Instruments, "load", fail)
    outcome = invoke(*PLACE, "--yes")
    assert outcome.exit_code == 0
    assert "TCS-EQ is not checked: no network" in outcome.everything
