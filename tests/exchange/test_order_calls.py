from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tests.exchange.callers import order, second_account, trading

PLACE = "/quick/order/rule/ms/place"
MODIFY = "/quick/order/vr/modify"
CANCEL = "/quick/order/cancel"
FINAL = {
    "stCode": 1021,
    "errMsg": "order is completed",
    "stat": "please provide valid order number",
}


def change(number: str, **changes: object) -> dict[str, object]:
    """A modification with the keys of the official SDK."""
    return {
        "no": number,
        "pr": "38.10",
        "pt": "L",
        "qt": "20",
        "tp": "0",
        "dq": "0",
        "mp": "0",
        "vd": "DAY",
        "am": "NO",
        "os": "NEOTRADEAPI",
    } | changes


async def test_an_accepted_order_is_answered_with_its_number() -> None:
    async with trading() as caller:
        accepted = await caller.place()
        assert accepted.status == 200
        assert accepted.headers["Content-Type"] == "application/json"
        assert accepted.json() == {"nOrdNo": "261123000000001", "stat": "Ok", "stCode": 200}


async def test_a_form_may_write_blanks_as_percent_twenty() -> None:
    async with trading() as caller:
        accepted = await caller.request(
            "POST",
            f"{caller.exchange.base_url}{PLACE}",
            headers=caller.pair | {"Content-Type": "application/x-www-form-urlencoded"},
            data=f"jData={quote(json.dumps(order()))}",
        )
        assert accepted.json()["stat"] == "Ok"


@pytest.mark.parametrize(
    ("spelled", "side"),
    [("B", "B"), ("Buy", "B"), ("BUY", "B"), ("S", "S"), ("Sell", "S"), ("SELL", "S")],
)
async def test_a_side_may_be_spelled_out(spelled: str, side: str) -> None:
    async with trading() as caller:
        await caller.placed(tt=spelled, pr="39.40")
        assert [row["trnsTp"] for row in await caller.book()] == [side]


@pytest.mark.parametrize("prefix", ["/Orders/2.0", "/apim/orders/2.0", "/apim/order/2.0"])
async def test_older_paths_lead_to_the_same_place(prefix: str) -> None:
    async with trading() as caller:
        assert (await caller.post(f"{prefix}{PLACE}", order())).json()["stat"] == "Ok"
        assert (await caller.get(f"{prefix}/quick/user/orders")).json()["stat"] == "Ok"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"es": "NSE"}, 1006),
        ({"ts": "NOSUCH-EQ"}, 1007),
        ({"qt": "0"}, 1009),
        ({"qt": "-5"}, 1009),
        ({"qt": "10.0"}, 1009),
        ({"qt": ""}, 1009),
        ({"pc": "INTRADAY"}, 1011),
        ({"pr": ""}, 1009),
        ({"pr": "0.0"}, 5202),
        ({"tp": "0.0"}, 5202),
        ({"pr": "1e2"}, 5202),
        ({"pr": "38.001"}, 5202),
        ({"pr": "٣٨"}, 5202),
        ({"pt": "LIMIT"}, 5202),
        ({"rt": "GTC"}, 5202),
        ({"tt": "X"}, 5202),
    ],
)
async def test_what_cannot_be_an_order_is_refused_at_once(
    changes: dict[str, str], code: int
) -> None:
    async with trading() as caller:
        refused = await caller.place(**changes)
        body = refused.json()
        assert (refused.status, body["stCode"], body["stat"]) == (400, code, "Not_Ok")
        assert body["emsg"] == body["errMsg"] != ""
        assert (await caller.admin("GET", "ledger")).json() == []


@pytest.mark.parametrize(
    "body", [b"", b"jData=", b"jData=[]", b"jData=%7B", b"other=%7B%7D", b"jData=%7B%7D"]
)
async def test_a_body_without_an_order_is_invalid(body: bytes) -> None:
    async with trading() as caller:
        refused = await caller.request(
            "POST", f"{caller.exchange.base_url}{PLACE}", headers=caller.pair, data=body
        )
        assert refused.status == 400
        assert refused.json() == {"stCode": 1007, "errMsg": "body invalid", "stat": "bad request"}


async def test_a_price_may_carry_needless_zeros() -> None:
    async with trading() as caller:
        await caller.placed(pr="38.1000")
        assert (await caller.book())[0]["prc"] == "38.10"


async def test_a_tag_comes_back_and_is_good_once() -> None:
    async with trading() as caller:
        number = await caller.placed(ig="tag_1")
        repeated = await caller.place(ig="tag_1")
        assert repeated.status == 200
        assert repeated.json() == {
            "stCode": 32,
            "errMsg": "error from core",
            "stat": "Put Order Response : Client OrderID already exists Data: 0",
        }
        assert [(row["nOrdNo"], row["GuiOrdId"]) for row in await caller.book()] == [
            (number, "tag_1")
        ]
        (entry,) = (await caller.admin("GET", "ledger")).json()
        assert (entry["client_tag"], entry["arrivals"]) == ("tag_1", 2)


async def test_a_modification_changes_the_order() -> None:
    async with trading() as caller:
        number = await caller.placed()
        accepted = await caller.post(MODIFY, change(number))
        assert accepted.json() == {"nOrdNo": number, "stat": "Ok", "stCode": 200}
        (row,) = await caller.book()
        assert (row["prc"], row["qty"], row["reqId"]) == ("38.10", 20, "2")


async def test_the_keys_of_the_documents_are_taken_too() -> None:
    async with trading() as caller:
        number = await caller.placed()
        keys = {"tk": "19084", "es": "nse_cm", "pc": "CNC", "ts": "ITBEES-EQ", "tt": "B"}
        documented = change(number, rt="DAY", dd="NA", fq="0", pf="N", **keys)
        del documented["vd"], documented["os"], documented["am"]
        assert (await caller.post(MODIFY, documented)).json()["stat"] == "Ok"


@pytest.mark.parametrize(
    "contradiction",
    [{"tk": "11536"}, {"es": "bse_cm"}, {"pc": "MIS"}, {"ts": "TCS-EQ"}, {"tt": "S"}],
)
async def test_a_modification_may_not_contradict_its_order(
    contradiction: dict[str, str],
) -> None:
    async with trading() as caller:
        number = await caller.placed()
        refused = await caller.post(MODIFY, change(number, **contradiction))
        assert (refused.status, refused.json()["stCode"]) == (400, 1009)
        assert (await caller.book())[0]["prc"] == "38.00"


@pytest.mark.parametrize("path", [CANCEL, "/quick/order/bo/exit", "/quick/order/co/exit"])
async def test_a_cancel_ends_the_order(path: str) -> None:
    async with trading() as caller:
        number = await caller.placed()
        accepted = await caller.post(path, {"on": number, "am": "NO"})
        assert accepted.json() == {"nOrdNo": number, "stat": "Ok", "stCode": 200}
        (row,) = await caller.book()
        assert (row["ordSt"], row["cnlQty"], row["unFldSz"]) == ("cancelled", 10, 0)


async def test_what_is_final_or_unknown_cannot_be_changed() -> None:
    async with trading() as caller:
        number = await caller.placed()
        await caller.post(CANCEL, {"on": number})
        for final in (number, "261123000009999"):
            modified = await caller.post(MODIFY, change(final))
            cancelled = await caller.post(CANCEL, {"on": final})
            assert modified.status == cancelled.status == 200
            assert modified.json() == cancelled.json() == FINAL


async def test_an_order_is_its_accounts_own() -> None:
    async with trading() as caller:
        number = await caller.placed()
        caller.credentials = second_account(caller)
        await caller.log_in()
        assert (await caller.post(CANCEL, {"on": number})).json() == FINAL
        assert (await caller.get(f"/quick/user/orders/{number}")).json()["stCode"] == 5203
        assert (await caller.get("/portfolio/v1/holdings")).json() == {"data": []}


async def test_a_wrong_method_is_named() -> None:
    async with trading() as caller:
        refused = await caller.get(PLACE)
        assert refused.status == 405
        assert refused.json()["description"] == f"/neo{PLACE} takes POST"
