"""The official SDK logs in to the exchange, and is refused in the broker's words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from logging.handlers import TimedRotatingFileHandler
from typing import Any

import pytest

from neo_async.exchange import Exchange

Sdk = Any


def test_the_sdk_finds_every_address(sdk: Sdk, exchange: Exchange) -> None:
    settings = sdk.configuration
    assert settings.base_url == exchange.base_url
    assert settings.ucc == exchange.credentials.ucc
    assert settings.data_center == "E43"
    # From the configuration service, then from the login answer.
    assert settings.sfeed_websocket_url == settings.feed_url == exchange.feed_url
    assert settings.order_feed_url == settings.rt_url == exchange.realtime_url
    # It reads the token without checking who signed it.
    assert len(settings.extract_userid(settings.edit_token)) == 36


def test_a_wrong_mpin_is_refused_and_the_right_one_still_works(
    new_sdk: Callable[[], Sdk], codes: Callable[[], str], exchange: Exchange
) -> None:
    sdk = new_sdk()
    credentials = exchange.credentials
    assert sdk.totp_login(credentials.mobile_number, credentials.ucc, codes())["data"]["token"]
    refused = sdk.totp_validate("000000")
    assert refused == {"status": "error", "message": "Invalid MPIN.", "errorCode": "401"}
    assert sdk.configuration.edit_token is None
    assert sdk.limits() == {
        "Error Message": "Complete the 2fa process before accessing this application"
    }
    assert sdk.totp_validate(credentials.mpin)["data"]["kType"] == "Trade"
    assert sdk.limits()["stat"] == "Ok"


@pytest.mark.parametrize(
    "wrong", [{"totp": "000000"}, {"ucc": "OTHER"}, {"mobile_number": "+910000000000"}]
)
def test_wrong_credentials_are_refused(
    new_sdk: Callable[[], Sdk], exchange: Exchange, wrong: dict[str, str]
) -> None:
    credentials = exchange.credentials
    right = {"mobile_number": credentials.mobile_number, "ucc": credentials.ucc, "totp": "123456"}
    answer = new_sdk().totp_login(**right | wrong)
    assert answer == {
        "status": "error",
        "message": "Invalid credentials or TOTP.",
        "errorCode": "401",
    }


def test_a_code_is_not_taken_twice(
    new_sdk: Callable[[], Sdk], codes: Callable[[], str], exchange: Exchange
) -> None:
    credentials, code = exchange.credentials, codes()
    for taken in (True, False):
        answer = new_sdk().totp_login(credentials.mobile_number, credentials.ucc, code)
        assert ("data" in answer) is taken
    assert answer["message"] == "Invalid credentials or TOTP."


def test_the_address_of_the_caller_is_told(sdk: Sdk) -> None:
    answer = sdk.whatsmyip()
    assert answer["data"] == [{"ip": "127.0.0.1", "time": "2026-11-23 12:00:00.000"}]
    assert (answer["stCode"], answer["status"]) == (1000, "success")


def test_after_logout_the_sdk_asks_to_log_in(sdk: Sdk) -> None:
    settings = sdk.configuration
    token, sid = settings.edit_token, settings.edit_sid
    assert sdk.logout()["State"] == "OK"
    assert "Complete the 2fa process" in sdk.order_report()["Error Message"]
    # Forgotten by the SDK only: the broker has no call for it, and the login lives on.
    settings.edit_token, settings.edit_sid = token, sid
    assert sdk.order_report()["stCode"] == 5203


def test_an_ended_session_is_refused_as_the_broker_does(sdk: Sdk, exchange: Exchange) -> None:
    exchange.end_sessions()
    refused = sdk.limits()
    assert (refused["stCode"], refused["errMsg"], refused["stat"]) == (
        1003,
        "Invalid session",
        "Not_Ok",
    )


def test_the_sdk_writes_no_log_file(sdk: Sdk) -> None:
    handlers = logging.getLogger("neo_api_client").handlers
    assert not [handler for handler in handlers if isinstance(handler, TimedRotatingFileHandler)]
