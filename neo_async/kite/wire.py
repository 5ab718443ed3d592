"""Kite's forms, answers and rows.

Pure functions. Facts are from Kite Connect's mutual-fund documentation and the official client
(`kiteconnect` 5.2); where they differ, all variants are read.
"""

from __future__ import annotations

import logging
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import cache
from typing import Any, Final, TypeVar, get_args
from urllib.parse import urlencode

import msgspec

from neo_async.base import logs
from neo_async.base.india import IST
from neo_async.errors import (
    BODY_EXCERPT,
    BrokerError,
    InsufficientFunds,
    NeoError,
    ProtocolError,
    RateLimited,
    Rejected,
    ServerError,
    SessionEnded,
)
from neo_async.kite.model import FundHolding, FundOrder, KiteLogin, Sip
from neo_async.model import money
from neo_async.model.answer import Answer
from neo_async.wire.answers import retry_after
from neo_async.wire.lenient import UNREADABLE

log = logging.getLogger(logs.KITE)

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

Row = msgspec.Raw
"""A part of an answer that is not decoded yet."""

_PLAIN: Final = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_LARGEST_WHOLE: Final = 10**18

_NOTHING: Final = Row()
_NULL: Final = b"null"

FORM_HEADERS: Final = {"Content-Type": "application/x-www-form-urlencoded"}
VERSION_HEADERS: Final = {"X-Kite-Version": "3"}

_BY_TYPE: Final[Mapping[str, type[BrokerError]]] = {
    "TokenException": SessionEnded,
    "PermissionException": Rejected,
    "InputException": Rejected,
    "OrderException": Rejected,
    "HoldingException": Rejected,
    "UserException": Rejected,
    "MarginException": InsufficientFunds,
    # Kite's own order system did not answer, or not as expected: the request may have taken effect.
    "NetworkException": ServerError,
    "DataException": ServerError,
}

_SECRETS: Final = re.compile(
    r'("(?:access_token|refresh_token|public_token|enctoken|api_key|api_secret)"\s*:\s*")[^"]*'
)


class _Envelope(msgspec.Struct):
    data: Row = _NOTHING
    status: str | None = None
    message: str | None = None
    error_type: str | None = None


class _OrderId(msgspec.Struct):
    order_id: str = ""
    sip_id: str = ""


_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_rows = msgspec.json.Decoder(list[Row]).decode
_read_fields = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode
"""Decodes numbers with a point as text until their field is known, so that one out of range makes
only itself unreadable."""
_read_id = msgspec.json.Decoder(_OrderId).decode


def form_body(form: Mapping[str, str]) -> bytes:
    """Return a form in URL encoding."""
    return urlencode(form).encode()


# --- answers --------------------------------------------------------------------------------------


def read_list(answer: Answer) -> list[Row]:
    """Return the rows of a list, for `read_order` and its like. Raises the exception that any other
    answer stands for."""
    return _shaped(answer, _read_rows)


def read_one(answer: Answer) -> Row:
    """Return the only row of an answer. Raises the exception that any other answer stands for."""
    return _data(answer)


def read_order_id(answer: Answer) -> str:
    """Return the id of an accepted or cancelled order."""
    return _id(_shaped(answer, _read_id).order_id, answer)


def read_sip_id(answer: Answer) -> str:
    """Return the id of an accepted, changed or cancelled SIP. It is documented as `order_id`,
    too."""
    ids = _shaped(answer, _read_id)
    return _id(ids.sip_id or ids.order_id, answer)


def read_login(answer: Answer) -> KiteLogin:
    """Return the tokens of a login."""
    return _row(_data(answer), KiteLogin)


def check_success(answer: Answer) -> None:
    """Check an answer that has no content but its success."""
    _data(answer)


def _id(number: str, answer: Answer) -> str:
    if not number:
        raise _unexpected(answer, "the answer holds no id")
    return number


def _shaped(answer: Answer, read: Callable[[Row], T]) -> T:
    data = _data(answer)
    try:
        return read(data)
    except UNREADABLE as error:
        raise _unexpected(answer, f"the answer has an unexpected shape: {error}") from error


def _data(answer: Answer) -> Row:
    """Return the `data` of a successful answer. Most of them, but not all, have a `status`."""
    try:
        envelope = _read_envelope(answer.body)
    except UNREADABLE:
        raise failure(answer) from None
    is_success = 200 <= answer.status < 300 and envelope.status != "error"
    if not is_success or envelope.error_type or bytes(envelope.data) in (b"", _NULL):
        raise failure(answer)
    return envelope.data


# --- refusals -------------------------------------------------------------------------------------


def failure(answer: Answer) -> NeoError:
    """Return the exception that an answer stands for. Its `code` is Kite's `error_type`."""
    try:
        envelope = _read_envelope(answer.body)
    except UNREADABLE:
        envelope = None
    body = _excerpt(answer.body)
    text = (envelope.message or "") if envelope is not None else ""
    if answer.status == 429:
        return RateLimited(
            text or "too many requests", retry_after=retry_after(answer.headers), body=body
        )
    error_type = envelope.error_type if envelope is not None else None
    if not error_type and answer.status < 500:
        if answer.status in (401, 403) and envelope is not None:
            error_type = "TokenException"
        elif not text:
            return ProtocolError(_problem(answer), status=answer.status, body=body)
    kind = _BY_TYPE.get(error_type or "") or (ServerError if answer.status >= 500 else Rejected)
    return kind(
        text or f"refused with HTTP {answer.status}",
        code=error_type,
        status=answer.status,
        body=body,
    )


def _problem(answer: Answer) -> str:
    if not answer.body:
        return "the answer is empty"
    if answer.body.lstrip()[:1] not in (b"{", b"["):
        return "the answer is not JSON"
    return "the answer has an unexpected shape, or is cut off"


def _unexpected(answer: Answer, problem: str) -> ProtocolError:
    return ProtocolError(problem, status=answer.status, body=_excerpt(answer.body))


def _excerpt(body: bytes) -> str:
    """Return the start of the body as text, without credentials that it may contain."""
    text = body[: 4 * BODY_EXCERPT].decode("utf-8", "replace")
    return _SECRETS.sub(r"\1***", text)[:BODY_EXCERPT]


# --- rows -----------------------------------------------------------------------------------------


def read_order(row: Row) -> FundOrder:
    return _row(row, FundOrder)


def read_sip(row: Row) -> Sip:
    return _row(row, Sip)


def read_holding(row: Row) -> FundHolding:
    """Decode a holding. Kite sends a price of 0 when it is not known, and a P&L computed from such
    a price means nothing."""
    holding = _row(row, FundHolding)
    holding = msgspec.structs.replace(
        holding,
        average_price=_above_zero(holding.average_price),
        last_price=_above_zero(holding.last_price),
    )
    gain = holding.gain
    return msgspec.structs.replace(holding, pnl=None if gain is None else holding.pnl or gain)


def _above_zero(price: float | None) -> float | None:
    return price if price is not None and price > 0 else None


def _row(row: Row, kind: type[S]) -> S:
    """Decode a row. An unreadable field counts as missing, with a warning in the log.

    Raises ProtocolError when the row is not an object, or lacks a required field.
    """
    try:
        given = _read_fields(row)
    except UNREADABLE as error:
        raise ProtocolError(
            f"a row of the answer is not as it should be: {error}", body=_excerpt(bytes(row))
        ) from error
    fields = {}
    for name, read in _readers(kind).items():
        value = given.get(name)
        # Kite sends null for no value, also where that is not documented.
        if value is None:
            continue
        try:
            fields[name] = read(value)
        except (ValueError, OverflowError) as error:
            log.warning("%s: %s is taken as unknown: %s", kind.__name__, name, error)
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(
            f"a row of the answer is not as it should be: {error}", body=_excerpt(bytes(row))
        ) from error


@cache
def _readers(kind: type[msgspec.Struct]) -> dict[str, Callable[[Any], Any]]:
    """Return the function that reads each field, by its type."""
    return {
        field.name: _BY_FIELD.get(field.type) or _BY_FIELD[get_args(field.type)[0]]
        for field in msgspec.structs.fields(kind)
    }


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{reprlib.repr(value)} is no text")
    return str(value)


def read_number(value: object) -> float:
    """Return a number, which may be sent as text. Raises ValueError."""
    is_plain = isinstance(value, str) and _PLAIN.fullmatch(value) is not None
    number = float(value if is_plain else money.exact(value))  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError(f"{reprlib.repr(value)} is out of range")
    return number


def _whole(value: object) -> int:
    if type(value) is int and abs(value) < _LARGEST_WHOLE:
        return value
    number = money.exact(value)  # type: ignore[arg-type]
    if number != int(number) or abs(number) >= _LARGEST_WHOLE:
        raise ValueError(f"{reprlib.repr(value)} is no whole number")
    return int(number)


def _moment(value: object) -> datetime | None:
    """Return a time in India: `2021-06-30 08:33:07`; None for an empty text."""
    text = _as_text(value)
    return datetime.fromisoformat(text).replace(tzinfo=IST) if text else None


def _day(value: object) -> date | None:
    """Return a date: `2021-06-30`, possibly followed by a time; None for an empty text."""
    text = _as_text(value)
    return date.fromisoformat(text[:10]) if text else None


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{reprlib.repr(value)} is no date")
    return value.strip()


def _percents(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise ValueError(f"{reprlib.repr(value)} is no table")
    return {name: read_number(percent) for name, percent in value.items()}


_BY_FIELD: Final[Mapping[Any, Callable[[Any], Any]]] = {
    str: _text,
    float: read_number,
    int: _whole,
    datetime: _moment,
    date: _day,
    Mapping[str, float]: _percents,
}
"""The function that reads a field of each type."""
