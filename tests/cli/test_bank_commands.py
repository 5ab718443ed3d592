"""neo-async bank, against the exchange's bank."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from neo_async.banking import BankingProfile
from neo_async.cli import prompts
from neo_async.exchange import Exchange, Faults
from neo_async.exchange.bank.settings import BankSettings
from tests.cli.conftest import Invoke, exchange_in_a_thread
from tests.exchange_settings import exchange_with

PLAN = "[plan]\nrequests_per_second = 1000\n"


@pytest.fixture
def exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    """An open exchange, and the environment that leads commands to its bank."""
    fast = BankSettings(requests_per_second=None)
    with exchange_in_a_thread(exchange_with(seed=5, market_makers=False, bank=fast)) as opened:
        profile = tmp_path / "bank.toml"
        profile.write_text(PLAN)
        customer = opened.bank.client
        for name, value in {
            "KOTAK_BANK_URL": opened.bank_url,
            "KOTAK_BANK_PROFILE": str(profile),
            "KOTAK_BANK_CLIENT_ID": customer.client_id,
            "KOTAK_BANK_CLIENT_SECRET": customer.client_secret,
            "KOTAK_BANK_CLIENT_NAME": customer.name,
            "KOTAK_BANK_PHYSICAL_ACCOUNT": customer.physical_accounts[0],
        }.items():
            monkeypatch.setenv(name, value)
        yield opened


@pytest.fixture
def account(exchange: Exchange, invoke: Invoke) -> str:
    invoke("bank", "create", "ACME00000001", "Asha Rao", "--yes")
    return "ACME00000001"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_an_account_is_created_changed_and_deleted(exchange: Exchange, invoke: Invoke) -> None:
    created = invoke("bank", "create", "ACME00000001", "Asha Rao", "--max", "500000", "--yes")
    assert (created.exit_code, "done" in created.stdout) == (0, True)
    changed = invoke("bank", "modify", "ACME00000001", "--status", "blocked", "-y", "--json")
    assert json.loads(changed.stdout)[0]["outcome"] == "done"
    assert invoke("bank", "modify", "ACME00000001", "--max", "7", "--yes").exit_code == 0
    refused = invoke("bank", "delete", "ACME00000001", "ACME00000002", "--yes")
    assert refused.exit_code == 1
    assert "virtual account number unknown" in refused.stdout
    assert "1 of 2 are not done" in refused.everything


def test_the_exchange_is_paid_in_from_the_shell(
    exchange: Exchange, account: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEO_EXCHANGE_ADMIN_URL", exchange.admin_url)
    paid = invoke("paper", "credit", account, "1500.00", "--mode", "RTGS")
    assert (paid.exit_code, paid.stdout.startswith("paid in, reference ")) == (0, True)


def test_many_come_from_a_file_and_results_go_to_one(
    exchange: Exchange, invoke: Invoke, tmp_path: Path
) -> None:
    file = tmp_path / "accounts.csv"
    lines = [f"ACME{number:08},Customer {number},2026-11-01,100.50" for number in range(250)]
    file.write_text("\ufeffnumber,name,valid_from,max_amount\n" + "\n".join(lines))
    created = invoke("bank", "create", "--csv", str(file), "--yes")
    assert created.exit_code == 0
    assert [row["number"] for row in rows(created.stdout)] == [line[:12] for line in lines]
    changes = "number,max_amount,status\nACME00000003,-,BLOCKED\nACME00000004,,ACTIVE\nNONE01,1,\n"
    file.write_text(changes)
    changed = invoke("bank", "modify", "--csv", str(file), "--yes")
    assert changed.exit_code == 1
    assert [row["outcome"] for row in rows(changed.stdout)] == ["done", "done", "refused"]
    file.write_text("number\nACME00000003\n")
    deleted = invoke("bank", "delete", "--csv", str(file), "--yes")
    assert rows(deleted.stdout)[0]["outcome"] == "done"
    typed = invoke("bank", "delete", "--csv", "-", "--yes", typed="number\nACME00000004\n")
    assert rows(typed.stdout)[0] == {
        "number": "ACME00000004",
        "outcome": "done",
        "code": "00",
        "reason": "deleted",
    }


WRONG_FILES = [
    ("create", "number,nane\nA,B\n", "column 'nane' is none of number, name, valid_from"),
    ("create", "name\nB\n", "lacks column 'number'; has name"),
    ("create", "number,name\n", "has no line below its headings"),
    ("create", "number,name\nACME00000001,A,x\n", "line 2: has more cells than headings"),
    ("create", "number,name\nACME00000001,A\nacme,B\n", "line 3: number='acme': must be of the"),
    (
        "create",
        "number,name\nACME00000001,A\nACME00000001,B\n",
        "line 3: number='ACME00000001': is",
    ),
    ("create", "number,name,valid_to\nACME00000001,A,1.1.27\n", "line 2: valid_to='1.1.27': must"),
    ("create", "number,name,mobile\nACME00000001,A,12\n", "line 2: mobile='12': must be of the"),
    ("create", 'number,name\n"ACME\n', "is not CSV in UTF-8"),
    ("modify", "number,status\nACME00000001,GONE\n", "line 2: status='GONE': must be ACTIVE or"),
    ("modify", "number,status\nACME00000001,\n", "line 2: number='ACME00000001': no field is to"),
    ("delete", "number\nACME00000001\n\nA\n", "line 4: number='A': must be of the form"),
    ("refund", "reference,amount\nX,1.234\n", "line 2: amount='1.234': must be rupees"),
    ("refund", "reference,key\nX,7\n", "line 2: idempotency_key='7': must be of the form"),
    ("refund", "reference,amount\nX,1\nX,1\n", "line 3: is the same as line 2"),
]


@pytest.mark.parametrize(("command", "content", "message"), WRONG_FILES)
def test_a_wrong_file_is_told_by_its_line_and_nothing_is_sent(
    command: str, content: str, message: str, exchange: Exchange, invoke: Invoke, tmp_path: Path
) -> None:
    file = tmp_path / "many.csv"
    file.write_text(content)
    outcome = invoke("bank", command, "--csv", str(file), "--yes")
    assert outcome.exit_code == 2
    assert outcome.everything.startswith(f"neo-async: {file}")
    assert message in outcome.everything
    assert outcome.stdout == ""


WRONG_ARGUMENTS = [
    (("create",), "give NUMBER and NAME, or --csv FILE"),
    (("create", "A", "--csv", "x.csv"), "give no NUMBER beside it"),
    (("modify",), "give NUMBER, or --csv FILE"),
    (("modify", "ACME00000001"), "nothing to change: give --name"),
    (
        ("modify", "ACME00000001", "--status", "gone"),
        "--status 'gone': must be one of ACTIVE, BLOCKED",
    ),
    (("delete",), "give NUMBERS, or --csv FILE"),
    (("transactions", "--csv", "--json"), "--csv and --json exclude each other"),
    (("transactions", "--peek", "--store", "x"), "--peek excludes --follow and --store"),
    (("refund", "--yes"), "reference='': must be of 1 to 64 characters"),
    (("refund", "X", "--csv", "x.csv"), "--csv names the refunds"),
    (("refund", "--csv", "x.csv", "--wait", "3"), "--wait is for a single refund"),
    (("create", "ACME00000001", "A"), "stdin is not a terminal; --yes sends without asking"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_ARGUMENTS)
def test_a_command_that_cannot_be_right(
    arguments: tuple[str, ...], message: str, exchange: Exchange, invoke: Invoke
) -> None:
    outcome = invoke("bank", *arguments)
    assert (outcome.exit_code, message in outcome.everything) == (2, True), outcome.everything


def test_credits_are_shown_and_then_acknowledged(
    exchange: Exchange, account: str, invoke: Invoke, tmp_path: Path
) -> None:
    assert "no outstanding credits" in invoke("bank", "transactions", "--yes").everything
    exchange.bank.credit(account, "1500.00", narration="INV 77", count=130)
    peeked = invoke("bank", "transactions", "--peek")
    assert (peeked.exit_code, peeked.stdout.count("INV 77")) == (0, 100)
    store = str(tmp_path / "credits.db")
    taken = invoke("bank", "transactions", "--csv", "--yes", "--store", store)
    assert [row["sequence"] for row in rows(taken.stdout)] == [str(n) for n in range(1, 131)]
    assert {row["amount"] for row in rows(taken.stdout)} == {"1500.00"}
    exchange.bank.credit(account, "2.00")
    line = json.loads(invoke("bank", "transactions", "--json", "--yes").stdout)
    assert (line["sequence"], line["amount"], line["may_be_repeated"]) == (131, "2.00", False)


def test_a_refund_is_asked_about_and_followed(
    exchange: Exchange, account: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = exchange.bank.credit(account, "1500.00")
    monkeypatch.setattr(prompts, "can_prompt", lambda: True)
    declined = invoke("bank", "refund", reference, "--amount", "500", typed="n\n")
    assert declined.exit_code == 1
    assert f"refund 500.00 rupees of {reference}" in declined.everything
    sent = invoke("bank", "refund", reference, "--amount", "500", typed="y\n")
    assert sent.exit_code == 0
    key = sent.stdout.split()[-1]
    exchange.bank.move_refund("RF0000000001", "SUCCESS")
    again = invoke("bank", "refund", reference, "--key", key, "--amount", "500", "-y", "--json")
    told = json.loads(again.stdout)
    assert (told["refund_reference"], told["status"]) == ("RF0000000001", "SUCCESS")
    late = invoke("bank", "refund", reference, "--yes", "--wait", "0.01")
    assert (late.exit_code, "not final after 0.01 s" in late.everything) == (0, True)


def test_a_file_of_refunds_can_be_sent_again(
    exchange: Exchange, account: str, invoke: Invoke, tmp_path: Path
) -> None:
    reference = exchange.bank.credit(account, "1500.00")
    file = tmp_path / "refunds.csv"
    file.write_text(f"reference,amount,reason\n{reference},10,twice\n{reference},20,\nNOPE,1,\n")
    first = invoke("bank", "refund", "--csv", str(file), "--yes")
    again = invoke("bank", "refund", "--csv", str(file), "--yes")
    assert first.stdout == again.stdout
    told = rows(first.stdout)
    assert [row["outcome"] for row in told] == ["INITIATED", "INITIATED", "refused"]
    assert [row["refund_reference"] for row in told] == ["RF0000000001", "RF0000000002", ""]
    assert first.exit_code == 1
    assert "1 of 3 are not done" in first.everything


def test_what_hits_every_refund_ends_the_file(
    exchange: Exchange, account: str, invoke: Invoke, tmp_path: Path
) -> None:
    file = tmp_path / "refunds.csv"
    file.write_text("reference,amount\nX,1\nY,1\n")
    (tmp_path / "bank.toml").write_text(PLAN + "[server]\ntimeout = 0.1\n")
    exchange.faults.set(Faults(calls=("bank",), throttle=1.0))
    outcome = invoke("bank", "refund", "--csv", str(file), "--yes", "--json")
    told = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [each["outcome"] for each in told] == ["not sent", "not sent"]
    assert outcome.exit_code == 1


@pytest.mark.parametrize("arguments", [("--csv",), ("ACME00000001", "--profile")])
def test_a_file_that_is_not_there_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], exchange: Exchange, invoke: Invoke, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    outcome = invoke("bank", "delete", "--yes", *arguments, str(missing))
    assert outcome.exit_code == 2
    assert outcome.everything == f"neo-async: {missing}: No such file or directory\n"


def test_a_physical_account_that_nobody_gave_is_asked_for_by_its_names(
    exchange: Exchange, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KOTAK_BANK_PHYSICAL_ACCOUNT")
    outcome = invoke("bank", "transactions", "--peek")
    assert outcome.exit_code == 2
    assert outcome.everything == (
        "neo-async: physical_account='': must be given, here or as [customer] physical_account of "
        "the profile (the shell also reads KOTAK_BANK_PHYSICAL_ACCOUNT)\n"
    )


def test_an_environment_that_lacks_something(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KOTAK_BANK_CLIENT_ID", raising=False)
    monkeypatch.setenv("KOTAK_BANK_CLIENT_SECRET", "x")
    outcome = invoke("bank", "transactions", "--peek")
    assert outcome.exit_code == 2
    assert "environment lacks KOTAK_BANK_CLIENT_ID" in outcome.everything


def test_the_profile_that_is_printed_is_the_default(invoke: Invoke) -> None:
    printed = tomllib.loads(invoke("bank", "profile").stdout)
    assert BankingProfile.of(printed) == BankingProfile()
    assert set(printed) == set(BankingProfile.__struct_fields__) - {"constants"}
