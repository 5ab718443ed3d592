"""Kite's bytes and our structs, both ways: forms out; the envelope, its errors and rows in.

Pure functions. Facts are from Kite Connect's mutual-fund document and the official client
(`kiteconnect` 5.2); where they differ, all variants are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec

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
from neo_async.model.answer import Answer
from neo_async.model.market import IST
from neo_async.wire.answers import retry_after

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

Row = msgspec.Raw
"""A part of an answer that is not read yet."""

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
    # Kite's own order system did not answer, or not as it should: whatever was asked for may have
    # happened.
    "NetworkException": ServerError,
    "DataException": ServerError,
}

_SECRETS: Final = re.compile(
    r'("(?:access_token|refresh_token|public_token|enctoken|api_key|api_secret)"\s*:\s*")[^"]*'
)

_ORDER_TIMES: Final = ("order_timestamp",)
_ORDER_DAYS: Final = ("exchange_timestamp", "last_price_date")
_SIP_TIMES: Final = ("created", "last_instalment")
_SIP_DAYS: Final = ("next_instalment",)
_HOLDING_DAYS: Final = ("last_price_date",)
_LOGIN_TIMES: Final = ("login_time",)


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
_read_fields = msgspec.json.Decoder(dict[str, Any]).decode
_read_id = msgspec.json.Decoder(_OrderId).decode


def form_body(form: Mapping[str, str]) -> bytes:
    return urlencode(form).encode()


# --- answers --------------------------------------------------------------------------------------


def read_list(answer: Answer) -> list[Row]:
    """The rows of a list, for `read_order` and its like. Raises what the answer says."""
    return _shaped(answer, _read_rows)


def read_one(answer: Answer) -> Row:
    """The only row of an answer. Raises what the answer says."""
    return _data(answer)


def read_order_id(answer: Answer) -> str:
    """Of an order that was taken or cancelled."""
    return _id(_shaped(answer, _read_id).order_id, answer)


def read_sip_id(answer: Answer) -> str:
    """Of a SIP that was taken, changed or cancelled. The document calls it `order_id`, too."""
    ids = _shaped(answer, _read_id)
    return _id(ids.sip_id or ids.order_id, answer)


def read_login(answer: Answer) -> KiteLogin:
    return _row(_data(answer), KiteLogin, times=_LOGIN_TIMES)


def check_success(answer: Answer) -> None:
    """Of a call whose answer says nothing else."""
    _data(answer)


def _id(number: str, answer: Answer) -> str:
    if not number:
        raise _unexpected(answer, "the answer holds no id")
    return number


def _shaped(answer: Answer, read: Callable[[Row], T]) -> T:
    data = _data(answer)
    try:
        return read(data)
    except msgspec.MsgspecError as error:
        raise _unexpected(answer, f"the answer has an unexpected shape: {error}") from error


def _data(answer: Answer) -> Row:
    """What a successful answer holds. A `status` is in most of them, but not in all."""
    try:
        envelope = _read_envelope(answer.body)
    except (msgspec.MsgspecError, RecursionError):
        raise failure(answer) from None
    is_success = 200 <= answer.status < 300 and envelope.status != "error"
    if not is_success or envelope.error_type or bytes(envelope.data) in (b"", _NULL):
        raise failure(answer)
    return envelope.data


# --- refusals -------------------------------------------------------------------------------------


def failure(answer: Answer) -> NeoError:
    """The exception that an answer stands for. Its `code` is Kite's `error_type`."""
    try:
        envelope = _read_envelope(answer.body)
    except (msgspec.MsgspecError, RecursionError):
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
    """The start of the body as text, without the credentials an answer may carry."""
    text = body[: 4 * BODY_EXCERPT].decode("utf-8", "replace")
    return _SECRETS.sub(r"\1***", text)[:BODY_EXCERPT]


# --- rows -----------------------------------------------------------------------------------------


def read_order(row: Row) -> FundOrder:
    return _row(row, FundOrder, times=_ORDER_TIMES, days=_ORDER_DAYS)


def read_sip(row: Row) -> Sip:
    return _row(row, Sip, times=_SIP_TIMES, days=_SIP_DAYS)


def read_holding(row: Row) -> FundHolding:
    holding = _row(row, FundHolding, days=_HOLDING_DAYS)
    if holding.pnl:
        return holding
    gain = (holding.last_price - holding.average_price) * holding.quantity
    return msgspec.structs.replace(holding, pnl=round(gain, 2))


def _row(row: Row, kind: type[S], *, times: tuple[str, ...] = (), days: tuple[str, ...] = ()) -> S:
    """Raises ProtocolError that names the field at fault."""
    try:
        # Null is Kite's way of saying that there is nothing, also where it is not documented.
        fields = {name: value for name, value in _read_fields(row).items() if value is not None}
        for name in times:
            if name in fields:
                fields[name] = _moment(fields[name])
        for name in days:
            if name in fields:
                fields[name] = _day(fields[name])
        return msgspec.convert(fields, kind, strict=False)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise ProtocolError(
            f"a row of the answer is not as it should be: {error}", body=_excerpt(bytes(row))
        ) from error


def _moment(text: str) -> datetime | None:
    """`2021-06-30 08:33:07`, in India; empty means none."""
    return datetime.fromisoformat(text).replace(tzinfo=IST) if text else None


def _day(text: str) -> date | None:
    """`2021-06-30`, maybe with a time behind it; empty means none."""
    return date.fromisoformat(text[:10]) if text else None
