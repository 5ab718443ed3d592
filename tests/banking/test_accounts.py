"""Many accounts in a call: a result for each, whatever becomes of the rest."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from neo_async.banking import (
    AccountChange,
    AccountStatus,
    Outcome,
    Refusal,
    VirtualAccount,
)
from neo_async.errors import (
    AnswerLost,
    BankRejected,
    InvalidField,
    LoginFailed,
    NotSent,
    ProtocolError,
    RateLimited,
    UsageError,
)
from tests.banking.small_bank import CLIENT, PHYSICAL, SmallBank, client_of, serving

ASHA = VirtualAccount(
    "ACME00000001",
    "Asha Rao",
    valid_from=date(2026, 11, 1),
    valid_to=date(2027, 10, 31),
    min_amount=1,
    max_amount="500000",
    mobile="+919876543210",
    email="asha@example.com",
    description="invoice 77",
)


def some(count: int) -> list[VirtualAccount]:
    return [VirtualAccount(f"ACME{number:08}", f"Customer {number}") for number in range(count)]


async def test_an_account_goes_out_as_the_contract_says():
    bank = SmallBank()
    async with serving(bank), client_of(bank) as client:
        (result,) = await client.create(ASHA)
    assert (result.number, result.outcome, result.code) == ("ACME00000001", Outcome.DONE, "00")
    path, headers, body = bank.requests[0]
    assert path == "/va/v1/accounts/create"
    assert body.pop("requestId") == headers["idempotency-key"] == headers["x-request-id"]
    assert body == {
        "clientName": CLIENT,
        "physicalAccount": PHYSICAL,
        "accounts": [
            {
                "virtualAccountNumber": "ACME00000001",
                "name": "Asha Rao",
                "validFrom": "2026-11-01",
                "validTo": "2027-10-31",
                "minAmount": "1.00",
                "maxAmount": "500000.00",
                "mobile": "+919876543210",
                "email": "asha@example.com",
                "description": "invoice 77",
            }
        ],
    }


async def test_many_go_in_batches_and_results_come_in_the_callers_order():
    bank = SmallBank()
    accounts = some(250)
    told = []
    async with serving(bank), client_of(bank) as client:
        await client.create(accounts[120])
        bank.requests.clear()
        bank.accounts["ACME00000120"]["name"] = "Somebody else"
        results = await client.create(
            accounts, progress=lambda done, total: told.append((done, total))
        )
    assert [len(body["accounts"]) for body in bank.bodies("create")] == [100, 100, 50]
    assert [result.number for result in results] == [account.number for account in accounts]
    (refused,) = [result for result in results if not result.is_done]
    assert (refused.number, refused.outcome) == ("ACME00000120", Outcome.REFUSED)
    assert (refused.code, refused.refusal) == ("VA1002", Refusal.DUPLICATE)
    assert told == [(0, 250), (100, 250), (200, 250), (250, 250)]


async def test_what_is_there_already_with_the_same_data_is_done():
    bank = SmallBank()
    async with serving(bank), client_of(bank) as client:
        await client.create(ASHA)
        (same,) = await client.create(ASHA)
        (other,) = await client.create(VirtualAccount("ACME00000001", "Asha Rao"))
    assert (same.outcome, same.code) == (Outcome.DONE, "VA1002")
    assert "with the same data" in same.reason
    assert other.outcome is Outcome.REFUSED


async def test_one_that_makes_the_bank_refuse_all_is_found():
    bank = SmallBank()
    accounts = some(100)
    accounts[63] = VirtualAccount("ACME00000063", "poison")
    async with serving(bank), client_of(bank) as client:
        results = await client.create(accounts)
    (refused,) = [result for result in results if not result.is_done]
    assert (refused.number, refused.refusal) == ("ACME00000063", Refusal.INPUT)
    assert len(bank.accounts) == 99


async def test_a_bank_that_refuses_everything_is_not_asked_about_each():
    bank = SmallBank()
    accounts = [VirtualAccount(f"ACME{number:08}", "poison") for number in range(100)]
    async with serving(bank), client_of(bank) as client:
        results = await client.create(accounts)
    assert {result.outcome for result in results} == {Outcome.REFUSED}
    assert len(bank.requests) < 40


async def test_a_lost_answer_is_asked_for_again_under_the_same_key():
    bank = SmallBank(["after", "500 after", "before"])
    async with serving(bank), client_of(bank) as client:
        (result,) = await client.create(ASHA)
    assert result.outcome is Outcome.DONE
    assert len({headers["idempotency-key"] for _, headers, _ in bank.requests}) == 1
    assert len({str(body) for _, _, body in bank.requests}) == 1
    assert len(bank.requests) == 4


async def test_without_idempotency_a_lost_answer_is_looked_up_instead():
    bank = SmallBank(["after"])
    sections = {"idempotency": {"offered": False}}
    async with serving(bank), client_of(bank, **sections) as client:
        (created,) = await client.create(ASHA)
        bank.faults = iter(["before"])
        (unknown,) = await client.create(VirtualAccount("ACME00000002", "B"))
        bank.faults = iter(["after"])
        (changed,) = await client.modify(AccountChange("ACME00000001", name="Asha R"))
        bank.faults = iter(["after"])
        (deleted,) = await client.delete("ACME00000001")
    assert [created.outcome, changed.outcome, deleted.outcome] == [Outcome.DONE] * 3
    assert created.reason.startswith("looked up (")
    assert unknown.outcome is Outcome.UNKNOWN
    assert len(bank.bodies("create")) == 2
    assert all("idempotency-key" not in headers for _, headers, _ in bank.requests)


async def test_without_any_way_to_tell_the_outcome_is_unknown():
    bank = SmallBank(["after"])
    sections = {"idempotency": {"offered": False}, "paths": {"inquiry": ""}}
    async with serving(bank), client_of(bank, **sections) as client:
        (result,) = await client.create(ASHA)
        with pytest.raises(UsageError, match=r"paths\.inquiry is empty"):
            await client.accounts("ACME00000001")
    assert result.outcome is Outcome.UNKNOWN
    assert len(bank.requests) == 1


async def test_an_account_of_which_the_answer_says_nothing_is_looked_up():
    bank = SmallBank()
    bank.results_left_out = {"ACME00000001"}
    async with serving(bank), client_of(bank) as client:
        results = await client.create(some(3))
    assert [result.outcome for result in results] == [
        Outcome.DONE,
        Outcome.UNKNOWN,
        Outcome.DONE,
    ]
    assert bank.paths()[-1] == "accounts/inquiry"


async def test_an_account_that_the_bank_had_trouble_with_is_looked_up():
    bank = SmallBank()
    async with serving(bank), client_of(bank) as client:
        await client.create(ASHA)
        result = {"virtualAccountNumber": ASHA.number, "status": "FAILURE", "code": "VA0500"}
        bank.instead["accounts/create"] = (200, {"status": "FAILURE", "results": [result]})
        (result,) = await client.create(ASHA)
    assert result.outcome is Outcome.DONE


@pytest.mark.parametrize("rows", [["odd"], [None], [["x"]]])
async def test_results_that_cannot_be_read_are_looked_up(rows):
    bank = SmallBank()
    bank.instead["accounts/create"] = (200, {"status": "SUCCESS", "results": rows})
    async with serving(bank), client_of(bank) as client:
        (result,) = await client.create(ASHA)
    assert result.outcome is Outcome.UNKNOWN


async def test_an_account_that_cannot_be_read_is_not_one_that_the_bank_does_not_know():
    bank = SmallBank()
    bank.instead["accounts/inquiry"] = (200, {"status": "SUCCESS", "results": ["odd"]})
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(ProtocolError, match="an account is not an object"):
            await client.accounts(ASHA.number)


async def test_an_odd_value_of_an_account_is_unknown_and_proves_nothing():
    bank = SmallBank()
    async with serving(bank), client_of(bank) as client:
        await client.create([ASHA, *some(1)])
        odd = {"minAmount": "N/A", "validTo": "31/10/2027", "maxAmount": "5,00,000.00"}
        bank.accounts[ASHA.number] |= odd
        first, second = await client.accounts([ASHA.number, some(1)[0].number])
        assert (first.min_amount, first.valid_to) == (None, None)
        assert first.unreadable == ("valid_to", "min_amount")
        assert first.max_amount == Decimal(500_000)
        assert second.unreadable == ()
        bank.instead["accounts/modify"] = (500, {})
        (result,) = await client.modify(AccountChange(ASHA.number, min_amount=None))
    assert result.outcome is Outcome.UNKNOWN


async def test_a_word_that_nobody_knows_is_looked_up():
    bank = SmallBank()
    results = [{"virtualAccountNumber": "ACME00000000", "status": "PENDING"}]
    bank.instead["accounts/create"] = (200, {"status": "SUCCESS", "results": results})
    async with serving(bank), client_of(bank) as client:
        (result,) = await client.create(some(1))
        assert result.outcome is Outcome.UNKNOWN
        account = {"virtualAccountNumber": "ACME00000000", "name": "Customer 0"}
        bank.accounts["ACME00000000"] = {**account, "accountStatus": "ACTIVE"}
        (result,) = await client.create(some(1))
        assert result.outcome is Outcome.DONE


async def test_a_failure_half_way_keeps_what_was_done():
    bank = SmallBank(["", "429", "429", "429"])
    sections = {"server": {"timeout": 0.5}}
    async with serving(bank), client_of(bank, **sections) as client:
        results = await client.create(some(150))
        assert [result.outcome for result in results[:100]] == [Outcome.DONE] * 100
        assert {result.outcome for result in results[100:]} == {Outcome.NOT_SENT}
        assert "slow down" in results[-1].reason
        with pytest.raises(RateLimited):
            await client.create(some(1))


async def test_a_failure_at_once_is_raised():
    bank = SmallBank(["403"])
    bank.instead["accounts/create"] = (
        403,
        {"status": "FAILURE", "errorCode": "VA0403", "message": "not your account"},
    )
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(BankRejected, match="not your account") as caught:
            await client.create(some(2))
    assert caught.value.refusal == Refusal.FORBIDDEN


async def test_a_bank_that_is_not_there():
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    async with client_of(bank) as client:
        with pytest.raises(NotSent, match="cannot connect"):
            await client.create(some(2))


async def test_changes_send_what_is_given_and_null_for_what_is_cleared():
    bank = SmallBank()
    async with serving(bank), client_of(bank) as client:
        await client.create(ASHA)
        (result,) = await client.modify(
            AccountChange("ACME00000001", email=None, status=AccountStatus.BLOCKED)
        )
        (state,) = await client.accounts(["ACME00000001", "ACME00000009"])
    assert result.is_done
    assert bank.bodies("modify")[0]["accounts"] == [
        {"virtualAccountNumber": "ACME00000001", "email": None, "status": "BLOCKED"}
    ]
    assert (state.status, state.email, state.mobile) == (
        AccountStatus.BLOCKED,
        "",
        "+919876543210",
    )
    assert (state.min_amount, state.valid_to) == (Decimal("1.00"), date(2027, 10, 31))


async def test_accounts_that_the_bank_does_not_know():
    bank = SmallBank()
    async with serving(bank), client_of(bank) as client:
        results = await client.delete(["ACME00000001", "ACME00000002"])
    assert {result.refusal for result in results} == {Refusal.UNKNOWN_ACCOUNT}


async def test_a_wrong_secret_is_told_without_showing_it():
    bank = SmallBank()
    async with serving(bank), client_of(bank) as client:
        client._keeper._identity = type(client._keeper._identity)("l7xxother", "hush-hush")
        with pytest.raises(LoginFailed, match="who are you") as caught:
            await client.create(ASHA)
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(caught.value)


# --- what is never sent ---------------------------------------------------------------------------

BAD_ACCOUNTS = [
    ({"number": "acme1"}, r"accounts\[0\]\.number='acme1': must be of the form \[A-Z0-9\]\{6,20\}"),
    ({"number": "ACME00000001\n"}, "number"),
    ({"name": ""}, r"accounts\[0\]\.name='': must be of 1 to 80 characters"),
    ({"name": "x" * 81}, "name"),
    ({"name": "a\nb"}, "printable"),
    ({"valid_from": "2026-11-01"}, "must be a date"),
    ({"valid_from": date(2027, 1, 2), "valid_to": date(2027, 1, 1)}, "must not be after valid_to"),
    ({"min_amount": 10.5}, "a float is not exact"),
    ({"min_amount": "1.234"}, 'must be rupees, such as "1500.00"'),
    ({"min_amount": Decimal("1.234")}, "more than two decimals"),
    ({"min_amount": 0}, "must be above 0"),
    ({"min_amount": "1e3"}, "must be rupees"),
    ({"min_amount": Decimal("NaN")}, "must be above 0"),
    ({"max_amount": True}, "must be rupees"),
    ({"min_amount": 5, "max_amount": 4}, "must not be above max_amount"),
    ({"mobile": "9876543210"}, "mobile"),
    ({"email": "nobody"}, "must be like name@example.com"),
    ({"email": "a@" + "b" * 80 + ".com"}, "1 to 80"),
    ({"description": "x" * 101}, "1 to 100"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_ACCOUNTS)
async def test_a_bad_account_is_named_before_anything_is_sent(fields, message):
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    account = VirtualAccount(**{"number": "ACME00000001", "name": "Asha", **fields})
    async with client_of(bank) as client:
        with pytest.raises(InvalidField, match=message) as caught:
            await client.create([account])
    assert caught.value.field.startswith("accounts[0].")


async def test_other_bad_input_is_named_too():
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    async with client_of(bank) as client:
        with pytest.raises(InvalidField, match=r"numbers\[1\]='ACME00000001': is named twice"):
            await client.delete(["ACME00000001", "ACME00000001"])
        with pytest.raises(InvalidField, match="must name at least one"):
            await client.create([])
        with pytest.raises(InvalidField, match=r"accounts\[0\]='ACME1': must be of type"):
            await client.create(["ACME1"])  # type: ignore[list-item]
        with pytest.raises(InvalidField, match="no field is to be changed"):
            await client.modify(AccountChange("ACME00000001"))
        with pytest.raises(InvalidField, match=r"status=.*must be ACTIVE or BLOCKED"):
            await client.modify(AccountChange("ACME00000001", status=AccountStatus.DELETED))
        with pytest.raises(InvalidField, match=r"accounts\[0\]\.name=None"):
            await client.modify(AccountChange("ACME00000001", name=None))  # type: ignore[arg-type]
        with pytest.raises(InvalidField, match="physical_account='12': must be of the form"):
            await client.create(ASHA, physical_account="12")


async def test_an_answer_that_never_comes_is_a_failure_with_a_limit():
    bank = SmallBank(["before"] * 4)
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(AnswerLost):
            await client.accounts("ACME00000001")
    assert len(bank.requests) == 4
