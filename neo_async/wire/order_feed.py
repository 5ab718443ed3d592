"""The order and position feed (`/realtime`): messages of client and server.

The client opens with a handshake that looks like JSON without quotes, and sends a heartbeat of the
same kind. The server answers in JSON and then sends every event of the account.
"""

from __future__ import annotations

import reprlib

import msgspec

from neo_async.errors import ProtocolError
from neo_async.model.orders import is_order_number
from neo_async.model.updates import OrderUpdate, PositionUpdate
from neo_async.wire.lenient import UNREADABLE, read_json
from neo_async.wire.rows import RowReader

HEARTBEAT = "{type:hb}"

_NUMBER = "nOrdNo"


# What cannot be read counts as not sent: the rest of the message is worth having.
_ORDERS = RowReader(OrderUpdate)
_POSITIONS = RowReader(PositionUpdate)

_ORDER_TYPES = {"LMT": "L"}
"""Spellings of order types that only this feed uses, and the usual ones."""


class Connected(msgspec.Struct, frozen=True):
    """Message: the server has accepted the handshake."""

    text: str


class Refused(msgspec.Struct, frozen=True):
    """Message: the server has refused the handshake, with a reason."""

    text: str


def handshake_text(token: str, sid: str, *, as_json: bool) -> str:
    """Return the first message on a new connection. Most servers accept the form without quotes;
    some close the connection on it and accept JSON."""
    fields = {"type": "cn", "Authorization": token, "Sid": sid, "src": "WEB"}
    if as_json:
        return msgspec.json.encode(fields).decode()
    return "{" + ",".join(f"{name}:{value}" for name, value in fields.items()) + "}"


def read_message(
    text: str | bytes,
) -> Connected | Refused | OrderUpdate | PositionUpdate | None:
    """Return a message of the server; None for keep-alive messages and unknown ones.

    Raises ProtocolError when it is not JSON, or has neither an order number nor any content.
    """
    if text in (HEARTBEAT, HEARTBEAT.encode()):
        return None  # some servers send it back as it came
    try:
        message = read_json(text)
    except UNREADABLE as error:
        raise ProtocolError(f"an order feed message is not JSON: {reprlib.repr(text)}") from error
    if not isinstance(message, dict):
        return None
    kind = str(message.get("type")).strip().lower()
    if kind == "order":
        return _order(_data(message))
    if kind == "position":
        return _position(_data(message))
    return _control(kind, message)


def _data(message: dict[str, object]) -> dict[str, object]:
    data = message.get("data")
    if not isinstance(data, dict):
        raise ProtocolError(f"a message of the order feed lacks data: {reprlib.repr(message)}")
    return data


def _order(data: dict[str, object]) -> OrderUpdate:
    order_type = data.get("prcTp")
    if isinstance(order_type, str):
        data["prcTp"] = _ORDER_TYPES.get(order_type, order_type)
    update = _ORDERS.read_partial(data)
    if not is_order_number(update.number):
        raise ProtocolError(f"an order message lacks {_NUMBER}: {reprlib.repr(data)}")
    return update


def _position(data: dict[str, object]) -> PositionUpdate:
    return _POSITIONS.read_partial(data)


def _control(kind: str, message: dict[str, object]) -> Connected | Refused | None:
    answer = str(message.get("ak")).strip().lower()
    text = str(message.get("msg") or "")
    if answer == "nk" and kind != "hb":
        return Refused(text)
    return Connected(text) if answer == "ok" and kind == "cn" else None
