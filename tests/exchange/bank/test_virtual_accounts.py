from __future__ import annotations

from typing import Any

import pytest

from tests.exchange.bank.teller import (
    CREATE,
    DELETE,
    FETCH,
    INQUIRY,
    MODIFY,
    NUMBER,
    at_the_bank,
    external,
)

FULL = {
    "virtualAccountNumber": NUMBER,
    "name": "Asha Rao",
    "validFrom": "2026-11-01",
    "validTo": "2027-10-31",
    "minAmount": "1.00",
    "maxAmount": "500000.00",
    "mobile": "+919876543210",
    "email": "asha@example.com",
    "description": "invoice 77",
}


def item(number: str = NUMBER, **fields: object) -> dict[str, object]:
    return {"virtualAccountNumber": number, **fields}


async def test_what_is_created_can_be_asked_for() -> None:
    async with at_the_bank() as teller:
        (created,) = await teller.results(CREATE, FULL)
        assert created == {
            "index": 0,
            "virtualAccountNumber": NUMBER,
            "status": "SUCCESS",
            "code": "00",
            "message": "created",
        }
        (found,) = await teller.results(INQUIRY, item())
        assert FULL.items() <= found.items()
        assert found["accountStatus"] == "ACTIVE"


async def test_each_item_has_a_result_of_its_own_in_the_requests_order() -> None:
    async with at_the_bank() as teller:
        await teller.open()
        answer = await teller.told(
            CREATE,
            accounts=[
                item(name="is there already"),
                item("ACME00000002", name="new"),
                item("ACME00000002", name="twice"),
                item("ACME00000003"),
                item("acme", name="small"),
                item("ACME00000004", name="x", minAmount=5),
                "no account",
            ],
        )
        assert answer["status"] == "PARTIAL"
        assert [result["index"] for result in answer["results"]] == list(range(7))
        assert [(each["code"], each.get("field")) for each in answer["results"]] == [
            ("VA1002", None),
            ("00", None),
            ("VA1006", None),
            ("VA1001", "accounts[3]"),
            ("VA1001", "accounts[4].virtualAccountNumber"),
            ("VA1001", "accounts[5].minAmount"),
            ("VA1001", "accounts[6]"),
        ]
        assert "`name`" in answer["results"][3]["message"]
        assert (await teller.told(CREATE, accounts=[item()]))["status"] == "FAILURE"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "accounts[0].name"),
        ({"name": "x" * 81}, "accounts[0].name"),
        ({"validFrom": "01-11-2026"}, "accounts[0].validFrom"),
        ({"validFrom": "2026-11-02", "validTo": "2026-11-01"}, "validTo"),
        ({"minAmount": "2.00", "maxAmount": "1.99"}, "maxAmount"),
        ({"maxAmount": "5"}, "accounts[0].maxAmount"),
        ({"maxAmount": "5.00\n"}, "accounts[0].maxAmount"),
        ({"mobile": "9876543210"}, "accounts[0].mobile"),
        ({"email": "x" * 81}, "accounts[0].email"),
        ({"description": "x" * 101}, "accounts[0].description"),
        ({"virtualAccountNumber": "ACME1"}, "accounts[0].virtualAccountNumber"),
        ({"virtualAccountNumber": "A" * 21}, "accounts[0].virtualAccountNumber"),
    ],
)
async def test_fields_that_break_a_rule_are_named(fields: Any, field: str) -> None:
    async with at_the_bank() as teller:
        (result,) = await teller.results(CREATE, item(name="Asha Rao") | fields)
        assert (result["status"], result["code"]) == ("FAILURE", "VA1001")
        assert result["field"] == field


async def test_a_change_leaves_what_is_absent_and_clears_what_is_null() -> None:
    async with at_the_bank() as teller:
        await teller.results(CREATE, FULL)
        change = item(name="Asha R", maxAmount=None, status="BLOCKED")
        assert (await teller.results(MODIFY, change))[0]["code"] == "00"
        (found,) = await teller.results(INQUIRY, item())
        assert found["name"] == "Asha R"
        assert found["maxAmount"] is None
        assert found["minAmount"] == "1.00"
        assert found["accountStatus"] == "BLOCKED"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"name": None},
        {"status": "DELETED"},
        {"minAmount": "500000.01"},
        {"validTo": "2026-10-1"},
    ],
)
async def test_a_change_that_cannot_be_changes_nothing(change: Any) -> None:
    async with at_the_bank() as teller:
        await teller.results(CREATE, FULL)
        before = await teller.results(INQUIRY, item())
        (result,) = await teller.results(MODIFY, item(**change))
        assert result["code"] == "VA1001"
        assert await teller.results(INQUIRY, item()) == before


async def test_a_deleted_number_stays_taken_and_is_told_of() -> None:
    async with at_the_bank() as teller:
        await teller.open()
        assert (await teller.results(DELETE, item()))[0]["message"] == "deleted"
        assert (await teller.results(DELETE, item()))[0]["code"] == "VA1004"
        assert (await teller.results(MODIFY, item(name="x")))[0]["code"] == "VA1004"
        assert (await teller.results(CREATE, FULL))[0]["code"] == "VA1002"
        assert (await teller.results(INQUIRY, item()))[0]["accountStatus"] == "DELETED"
        unknown = await teller.results(INQUIRY, item("ACME00000009"))
        assert unknown[0]["code"] == "VA1003"


async def test_accounts_of_others_cannot_be_touched() -> None:
    async with at_the_bank() as teller:
        await teller.open()
        other = external(teller)
        await other.log_in()
        for service in (MODIFY, DELETE, INQUIRY):
            assert (await other.results(service, item(name="mine")))[0]["code"] == "VA0403"
        assert (await other.results(CREATE, item(name="mine")))[0]["code"] == "VA1002"
        for stolen in ({"clientName": "ACME"}, {"physicalAccount": teller.physical}):
            assert await other.refused(CREATE, accounts=[item()], **stolen) == (403, "VA0403")
            assert await other.refused(FETCH, **stolen) == (403, "VA0403")
        # Nor those under another account of one's own.
        second = teller.client.physical_accounts[1]
        answer = await teller.told(DELETE, accounts=[item()], physicalAccount=second)
        assert answer["results"][0]["code"] == "VA0403"


@pytest.mark.parametrize("count", [0, 101])
async def test_there_are_from_1_to_100_accounts_in_a_request(count: int) -> None:
    async with at_the_bank() as teller:
        accounts = [item(f"ACME{number:08}", name="x") for number in range(count)]
        assert await teller.refused(CREATE, accounts=accounts) == (400, "VA1005")
        assert (await teller.told(CREATE, accounts=(accounts or [FULL])[:100]))[
            "status"
        ] == "SUCCESS"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"requestId": "7"}, "requestId"),
        ({"requestId": None}, ""),
        ({"clientName": ""}, "clientName"),
        ({"physicalAccount": "12"}, "physicalAccount"),
        ({"accounts": {}}, "accounts"),
    ],
)
async def test_requests_that_break_a_rule_are_refused_whole(fields: Any, field: str) -> None:
    async with at_the_bank() as teller:
        refused = await teller.call(CREATE, **({"accounts": [FULL]} | fields))
        assert (refused.status, refused.json()["errorCode"]) == (400, "VA1001")
        assert refused.json().get("field", "") == field
        assert (await teller.results(INQUIRY, item()))[0]["code"] == "VA1003"
