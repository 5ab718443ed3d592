from __future__ import annotations

import base64
import json
from email.utils import parsedate_to_datetime

import pytest

from tests.exchange.callers import START, Caller, trading, visiting

VIEW_FIELDS = {
    *("token", "sid", "rid", "hsServerId", "ucc", "kType", "status", "dataCenter"),
    *("greetingName", "kId", "clientType", "dormancyStatus", "asbaStatus", "clientGroup"),
    *("kraStatus", "incUpdFlag", "searchAPIKey", "derivativesRiskDisclosure"),
    *("isUserPwdExpired", "isTrialAccount", "isNRI", "mfAccess", "incRange", "rcFlag"),
    "dataCenterMap",
}


async def test_each_step_answers_every_documented_field() -> None:
    async with visiting() as caller:
        view = (await caller.first_step()).json()["data"]
        trade = (await caller.second_step(view)).json()["data"]
        exchange = caller.exchange
        assert set(view) == VIEW_FIELDS
        assert set(trade) == VIEW_FIELDS | {"baseUrl", "feedUrl", "rtUrl"}
        assert (view["kType"], trade["kType"]) == ("View", "Trade")
        assert view["status"] == trade["status"] == "success"
        assert trade["ucc"] == exchange.credentials.ucc
        assert trade["baseUrl"] == exchange.base_url
        assert trade["feedUrl"] == exchange.feed_url
        assert trade["rtUrl"] == exchange.realtime_url
        assert len({view["sid"], trade["sid"], view["token"], trade["token"]}) == 4


async def test_a_token_is_a_jwt_that_ends_at_the_next_midnight_of_india() -> None:
    async with trading() as caller:
        header, claims, _ = caller.login_data["token"].split(".")
        assert _decode(header)["typ"] == "JWT"
        assert _decode(claims)["scope"] == ["Trade"]
        assert _decode(claims)["exp"] == START + 14 * 3600


async def test_the_base_url_has_a_path_that_may_not_be_dropped() -> None:
    async with trading() as caller:
        assert caller.exchange.base_url == f"{caller.exchange.login_url}/neo"
        url = f"{caller.exchange.login_url}/quick/user/orders"
        dropped = await caller.request("GET", url, headers=caller.pair)
        assert dropped.status == 404
        assert dropped.json() == {
            "code": "404",
            "type": "Status report",
            "message": "Not Found",
            "description": "no service at /quick/user/orders",
        }


@pytest.mark.parametrize(
    "wrong",
    [
        {"authorization": "5f0c0000-0000-4000-8000-000000000000"},
        {"mobileNumber": "+919999999999"},
        {"ucc": "OTHER"},
        {"totp": "not it"},
    ],
)
async def test_the_first_step_refuses_what_is_not_the_customers(wrong: dict[str, str]) -> None:
    async with visiting() as caller:
        refused = await caller.first_step(**wrong)
        assert refused.status == 401
        assert refused.json() == {
            "status": "error",
            "message": "Invalid credentials or TOTP.",
            "errorCode": "401",
        }


async def test_the_second_step_refuses_a_wrong_mpin_and_may_be_repeated() -> None:
    async with visiting() as caller:
        view = (await caller.first_step()).json()["data"]
        refused = await caller.second_step(view, mpin="no")
        assert refused.status == 401
        assert refused.json() == {
            "status": "error",
            "message": "Invalid MPIN.",
            "errorCode": "401",
        }
        assert (await caller.second_step(view)).status == 200


async def test_the_second_step_needs_the_pair_of_a_first() -> None:
    async with visiting() as caller:
        assert (await caller.second_step({"sid": "unknown", "token": "unknown"})).status == 401
        trade = await caller.log_in()
        assert (await caller.second_step(trade)).status == 401


@pytest.mark.parametrize("absent", [None, "", "  "])
@pytest.mark.parametrize(
    ("field", "spelled"), [("mobileNumber", "MobileNumber"), ("ucc", "Ucc"), ("totp", "Totp")]
)
async def test_a_field_that_is_missing_is_named(
    field: str, spelled: str, absent: str | None
) -> None:
    async with visiting() as caller:
        refused = await caller.first_step(**{field: absent})
        assert refused.status == 400
        text = f"Missing required field '{spelled}'"
        assert refused.json() == {"error": [{"code": "400", "message": text}]}


async def test_a_missing_mpin_is_named_too() -> None:
    async with visiting() as caller:
        view = (await caller.first_step()).json()["data"]
        refused = await caller.second_step(view, mpin="")
        assert refused.json()["error"][0]["message"] == "Missing required field 'Mpin'"


async def test_a_body_that_is_not_json_is_malformed() -> None:
    async with visiting() as caller:
        url = f"{caller.exchange.login_url}/login/1.0/tradeApiLogin"
        headers = {"neo-fin-key": "neotradeapi"}
        refused = await caller.request("POST", url, data=b"totp=123456", headers=headers)
        assert (refused.status, refused.json()["errorCode"]) == (422, "422")


@pytest.mark.parametrize("step", ["tradeApiLogin", "tradeApiValidate"])
@pytest.mark.parametrize("key", [{}, {"neo-fin-key": " "}])
async def test_a_login_without_the_applications_key_is_refused(
    step: str, key: dict[str, str]
) -> None:
    async with visiting() as caller:
        headers = {"Authorization": caller.credentials.consumer_key} | key
        for root in (caller.exchange.login_url, caller.exchange.base_url):
            url = f"{root}/login/1.0/{step}"
            refused = await caller.request("POST", url, json={}, headers=headers)
            assert refused.status == 400
            assert refused.json() == {
                "error": [{"code": "400", "message": "Missing required field 'NeoFinKey'"}]
            }


@pytest.mark.parametrize(("steps", "status"), [(-2, 401), (-1, 200), (0, 200), (1, 200), (2, 401)])
async def test_a_code_may_be_one_step_off(steps: int, status: int) -> None:
    async with visiting() as caller:
        assert (await caller.first_step(totp=caller.code(steps=steps))).status == status


async def test_a_code_is_accepted_once() -> None:
    async with visiting() as caller:
        code = caller.code()
        assert (await caller.first_step(totp=code)).status == 200
        assert (await caller.first_step(totp=code)).status == 401
        caller.clock.now += 30
        assert (await caller.first_step(totp=code)).status == 401
        assert (await caller.first_step()).status == 200


async def test_answers_carry_the_exchanges_own_date() -> None:
    async with visiting() as caller:
        refused = await caller.first_step(totp="000000")
        assert parsedate_to_datetime(refused.headers["Date"]).timestamp() == START


async def test_an_access_token_may_come_as_a_bearer() -> None:
    async with visiting() as caller:
        bearer = f"Bearer {caller.credentials.consumer_key}"
        assert (await caller.first_step(authorization=bearer)).status == 200


# --- sessions -----------------------------------------------------------------------------------


async def _is_logged_in(caller: Caller, pair: dict[str, str]) -> bool:
    url = f"{caller.exchange.base_url}/portfolio/v1/holdings"
    answered = await caller.request("GET", url, headers=pair)
    if answered.status == 200:
        return True
    assert answered.status == 403
    assert answered.json() == {
        "stCode": 1003,
        "errMsg": "Invalid session",
        "emsg": "Invalid session",
        "stat": "Not_Ok",
    }
    return False


async def test_a_pair_must_be_whole() -> None:
    async with trading() as caller:
        pair = caller.pair
        assert await _is_logged_in(caller, pair)
        assert not await _is_logged_in(caller, pair | {"Auth": "another"})
        assert not await _is_logged_in(caller, pair | {"Sid": "another"})
        assert not await _is_logged_in(caller, {})


async def test_a_view_token_opens_no_trading_call() -> None:
    async with visiting() as caller:
        caller.login_data = (await caller.first_step()).json()["data"]
        refused = await caller.place()
        assert refused.status == 401
        assert refused.json()["stCode"] == 100021
        assert refused.json()["errMsg"] == "invalid  access type"


async def test_a_third_login_ends_the_oldest() -> None:
    async with trading() as caller:
        first = caller.pair
        await caller.log_in_again()
        second = caller.pair
        assert await _is_logged_in(caller, first)
        await caller.log_in_again()
        assert not await _is_logged_in(caller, first)
        assert await _is_logged_in(caller, second)
        assert await _is_logged_in(caller, caller.pair)


async def test_a_login_ends_at_midnight() -> None:
    async with trading() as caller:
        caller.clock.now = START + 14 * 3600 - 1
        assert await _is_logged_in(caller, caller.pair)
        caller.clock.now += 1
        assert not await _is_logged_in(caller, caller.pair)


async def test_the_owner_can_end_all_logins() -> None:
    async with trading() as caller:
        caller.exchange.end_sessions()
        assert not await _is_logged_in(caller, caller.pair)
        await caller.log_in_again()
        assert await _is_logged_in(caller, caller.pair)


async def test_logging_out_ends_the_pair() -> None:
    async with trading() as caller:
        answered = await caller.post("/apim/login/2.0/logout", {})
        assert answered.json() == {"data": {"status": "success"}}
        assert not await _is_logged_in(caller, caller.pair)


async def test_a_client_can_ask_for_its_own_address() -> None:
    async with trading() as caller:
        url = f"{caller.exchange.login_url}/login/1.0/get-client-ip"
        answered = await caller.request("GET", url, headers=caller.pair)
        assert answered.json() == {
            "data": [{"ip": "127.0.0.1", "time": "2026-11-23 10:00:00.000"}],
            "stCode": 1000,
            "status": "success",
        }


async def test_the_configuration_service_leads_to_the_same_feeds_as_the_login() -> None:
    async with trading() as caller:
        query = "appVersion=1&platform=api&environment=prod"
        url = f"{caller.exchange.login_url}/5config/config?{query}"
        configs = (await caller.request("GET", url)).json()["data"]["configs"]
        center = caller.login_data["dataCenter"]
        source = configs[f"{center}_broadcast_source"]
        assert configs[f"{center}_{source}_broadcast_endpoint"] == caller.exchange.feed_url
        assert configs[f"{center}_{source}_interactive_endpoint"] == caller.exchange.realtime_url


def _decode(part: str) -> dict[str, object]:
    padded = part + "=" * (-len(part) % 4)
    content: dict[str, object] = json.loads(base64.urlsafe_b64decode(padded))
    return content
