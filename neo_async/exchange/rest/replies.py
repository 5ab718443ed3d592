"""Replies, and the bodies of the broker's errors.

Each family of calls has its own error shape, as with the broker: trading and report calls, login
steps, forms with a field missing, and the gateway in front of them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from neo_async.exchange.engine.types import Refusal

JSON: Final = "application/json"

encode: Final = msgspec.json.Encoder().encode


class Reply(NamedTuple):
    """An HTTP answer, without the headers that every answer has."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = {}


def json(content: object, *, status: int = 200) -> Reply:
    return Reply(encode(content), status)


def accepted(number: str) -> Reply:
    """Answer that a placement, change or cancel was received, which does not mean validated."""
    return Reply(b'{"nOrdNo":"%b","stat":"Ok","stCode":200}' % number.encode())


NO_DATA: Final = json(
    {"stCode": 5203, "errMsg": "No Data", "desc": "data not found", "stat": "Not_Ok"}
)
"""An empty book."""


def refused(refusal: Refusal) -> Reply:
    """Refuse in the shape of trading and report calls: the text under both of its keys, except
    where `stat` carries prose of its own, as for an order that is already final."""
    body: dict[str, object] = {"stCode": refusal.code, "errMsg": refusal.text}
    if refusal.stat == "Not_Ok":
        body["emsg"] = refusal.text
    body["stat"] = refusal.stat
    return json(body, status=refusal.http_status)


def data_refused(refusal: Refusal) -> Reply:
    """Refuse in the shape of quotes, expiries and chains."""
    return json(
        {"stat": refusal.stat, "emsg": refusal.text, "stCode": refusal.code},
        status=refusal.http_status,
    )


def login_refused(status: int, text: str) -> Reply:
    return json({"status": "error", "message": text, "errorCode": str(status)}, status=status)


def login_failed(code: int, text: str) -> Reply:
    """Refuse a login in its second shape, with status 200."""
    return json({"stCode": code, "errMsg": text.removesuffix("."), "status": "failure"})


def field_missing(name: str) -> Reply:
    text = f"Missing required field '{name}'"
    return json({"error": [{"code": "400", "message": text}]}, status=400)


def gateway_report(status: int, message: str, description: str) -> Reply:
    """Refuse in the gateway's words what never reaches the broker's services."""
    return json(
        {
            "code": str(status),
            "type": "Status report",
            "message": message,
            "description": description,
        },
        status=status,
    )


def fault(code: int, text: str) -> Reply:
    """Refuse in the shape of candles."""
    return json({"status": "ERROR", "fault": {"code": code, "message": text}}, status=code)


def throttled(limit: int) -> Reply:
    text = "Too many requests"
    return Reply(
        encode({"stat": "Not_Ok", "emsg": text, "errMsg": text, "stCode": 429}),
        429,
        headers={
            "Retry-After": "1",
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": "1",
        },
    )


def failed(status: int) -> Reply:
    """Answer an internal error in the service's words."""
    text = HTTPStatus(status).phrase
    return json({"stat": "Not_Ok", "emsg": text, "errMsg": text, "stCode": status}, status=status)
