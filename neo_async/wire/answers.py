"""Classify answers that are not a success.

The broker has some sixteen error shapes, answers errors with 200 and successes with odd codes, so
the body is read before the status. `failure` returns the one exception that each of them stands
for.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from neo_async.errors import (
    BODY_EXCERPT,
    BrokerError,
    DuplicateTag,
    InsufficientFunds,
    NeoError,
    OrderAlreadyFinal,
    ProtocolError,
    RateLimited,
    Rejected,
    ServerError,
    SessionEnded,
    StaticIpRefused,
)
from neo_async.model.answer import Answer
from neo_async.wire.lenient import UNREADABLE, read_json

NO_DATA = 5203
"""Code of an empty book: an answer, not a failure."""

_SUCCESS_CODES = frozenset({200, 1000})

_GATEWAY_FAILURES = frozenset({408, 424})
"""HTTP statuses for a timeout and a failed dependency: the gateway failed, and the request may have
taken effect."""

_BY_CODE: dict[int, type[BrokerError]] = {
    32: DuplicateTag,
    1003: SessionEnded,
    1004: InsufficientFunds,
    1005: ServerError,
    1006: OrderAlreadyFinal,
    1021: OrderAlreadyFinal,
    1037: StaticIpRefused,
    5204: DuplicateTag,
    100008: StaticIpRefused,
    100010: SessionEnded,
    100021: Rejected,  # a token of the wrong kind: another login would bring the same
    100022: SessionEnded,
}

_BAD_WORDS = ("err", "fail", "not", "rej")
"""Beginnings of `stat` and `status` texts that report a failure."""

_CODE = re.compile(r"\s*[0-9]{1,9}\s*")

_SECRET_FIELDS = re.compile(
    r'(\\?"(?:token|sid|auth|access_token|kId|mpin|totp|mobileNumber|searchAPIKey)\\?"\s*:\s*\\?")'
    r'[^"\\]*',
    re.IGNORECASE,
)
_SECRET_VALUES = re.compile(
    r"eyJ[\w-]{8,}(?:\.[\w-]*)*"  # tokens are JWTs,
    r"|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",  # sids and access tokens UUIDs
    re.IGNORECASE,
)


def failure(answer: Answer, *, lacking: str = "") -> NeoError:
    """Return the exception for an answer that is not a success of its call.

    ProtocolError when it is not an error of the broker: not JSON, cut off, empty, a redirection, or
    JSON of an unexpected shape, of which `lacking` names the field that a success would have. An
    answer below HTTP 400 with a message, but without any mark of the broker's errors, is one too: a
    message alone does not prove that nothing was done. ServerError for 5xx, whatever the body.
    """
    body = _excerpt(answer.body)
    content = _parse(answer.body)
    place = answer.headers.get("location", "").partition("?")[0]
    if 300 <= answer.status < 400 and place:
        # Not followed, since the headers carry credentials: only the answer to the login decides
        # where they may be sent.
        return ProtocolError(
            f"the call has moved to {_without_secrets(place)[:BODY_EXCERPT]!r}; redirections are "
            "not followed: Endpoints must name the server that answers",
            status=answer.status,
            body=body,
        )
    if answer.status == 429 or (content and _is_throttle(content)):
        text = _text(content or {}) or "too many requests"
        return RateLimited(text, retry_after=retry_after(answer.headers), body=body)
    if content is None:
        if answer.status >= 500:
            return ServerError(
                "the broker's server failed without a reason", status=answer.status, body=body
            )
        if answer.status in (401, 403):
            return SessionEnded("not authorised", status=answer.status, body=body)
        problem = "the answer is not JSON" if answer.body else "the answer is empty"
        return ProtocolError(problem, status=answer.status, body=body)

    text = _text(content)
    code = _code(content)
    is_refusal = code is not None or (bool(text) and _is_marked_as_error(content))
    if answer.status < 400 and not is_refusal:
        problem = "the answer has an unexpected shape"
        if text:
            problem = f"the answer is neither a success nor an error of the broker's form: {text!r}"
        if lacking:
            problem = f"{problem}: {lacking} is missing"
        return ProtocolError(problem, status=answer.status, body=body)
    return _kind(answer.status, code, text)(
        text or f"refused with HTTP {answer.status}", code=code, status=answer.status, body=body
    )


def _kind(status: int, code: int | None, text: str) -> type[BrokerError]:
    if code == 5204 and "already exists" not in text.lower():
        return Rejected  # the same code also means "Bad Input" on a cancel
    if code == 1006 and "exchange" in text.lower():
        return Rejected  # the same code also means an invalid exchange on a placement
    if code == 1006 and "not found" in text.lower():
        return Rejected  # "already cancelled or not found", also for an order that was just placed
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status >= 500 or status in _GATEWAY_FAILURES or (code is not None and 500 <= code < 600):
        return ServerError
    if status in (401, 403) and not _is_wrong_url(text):
        return SessionEnded
    return Rejected


def _is_marked_as_error(content: Mapping[str, object]) -> bool:
    """Return whether an object without a code has one of the broker's marks of an error."""
    stat, status = content.get("stat"), content.get("status")
    if isinstance(stat, str) and stat.strip().lower() == "ok":
        return isinstance(content.get("fault"), dict)
    if any(
        isinstance(word, str) and word.strip().lower().startswith(_BAD_WORDS)
        for word in (stat, status)
    ):
        return True
    error = content.get("error")
    return (
        isinstance(content.get("fault"), dict)
        or error is True
        or (isinstance(error, list) and bool(error))
        or any(_has_words(content.get(name)) for name in ("errMsg", "emsg", "stMsg"))
    )


def _is_throttle(content: Mapping[str, object]) -> bool:
    """Return whether the body has code 429 for throttling; logins use it for an invalid UCC,
    too."""
    return _code(content) == 429 and "too many" in _text(content).lower()


def _is_wrong_url(text: str) -> bool:
    """Return whether a 403 is about the base URL, which changes from day to day, and not about the
    session."""
    return "invalid url" in text.lower()


def is_success(content: Mapping[str, object]) -> bool:
    """Return whether an object of an answer, in any of the broker's shapes, reports success.

    `stat` and `stCode` decide where they are present. Without them, no known mark of an error may
    be present.
    """
    stat = content.get("stat")
    if stat not in (None, ""):
        return (
            isinstance(stat, str)
            and stat.strip().lower() == "ok"
            and not isinstance(content.get("fault"), dict)
        )
    if _number(content.get("stCode")) not in (None, *_SUCCESS_CODES):
        return False
    status = content.get("status")
    if isinstance(status, str) and status.strip().lower().startswith(_BAD_WORDS):
        return False
    return not (
        isinstance(content.get("fault"), dict)
        or content.get("error")
        or any(_has_words(content.get(name)) for name in ("errMsg", "emsg", "errorCode"))
    )


def is_no_data(content: Mapping[str, object]) -> bool:
    """Return whether an object of an answer reports that there is no data."""
    return _number(content.get("stCode")) == NO_DATA


def _has_words(text: object) -> bool:
    return isinstance(text, str) and bool(text.strip())


def is_empty_book(answer: Answer) -> bool:
    """Return whether an answer reports that there is no data."""
    content = _parse(answer.body)
    return content is not None and _code(content) == NO_DATA


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds of `Retry-After` in either of its forms; None when absent or unreadable.

    An HTTP date counts from `now` (Unix seconds), by default from the answer's own `Date` header,
    so that this machine's clock does not matter.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        until = parsedate_to_datetime(value).timestamp()
        if now is None:
            now = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return None
    return max(0.0, until - now)


def _parse(body: bytes) -> dict[str, object] | None:
    try:
        content = read_json(body)
    except UNREADABLE:
        return None
    return content if isinstance(content, dict) else {}


def _text(content: Mapping[str, object]) -> str:
    """Return the message of an error, from the field where its shape has it."""
    fault = content.get("fault")
    first = _first_error(content)
    data = content.get("data")
    stat = content.get("stat")
    candidates = (
        content.get("errMsg"),
        content.get("emsg"),
        content.get("stMsg"),
        content.get("message"),
        fault.get("message") if isinstance(fault, dict) else None,
        first.get("message"),
        data.get("Message") if isinstance(data, dict) else None,
        content.get("desc"),
        stat if isinstance(stat, str) and _is_prose(stat) else None,
    )
    words = (text.strip() for text in candidates if isinstance(text, str))
    return _without_secrets(next(filter(None, words), ""))


def _code(content: Mapping[str, object]) -> int | None:
    fault = content.get("fault")
    data = content.get("data")
    candidates = (
        content.get("stCode"),
        content.get("errorCode"),
        fault.get("code") if isinstance(fault, dict) else None,
        _first_error(content).get("code"),
        data.get("Code") if isinstance(data, dict) else None,
        content.get("code"),
    )
    for code in candidates:
        number = _number(code)
        if number is not None and number not in _SUCCESS_CODES:
            return number
    return None


def _number(code: object) -> int | None:
    """Return a code that may be a number or its text."""
    if isinstance(code, str) and _CODE.fullmatch(code):
        return int(code)
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _first_error(content: Mapping[str, object]) -> Mapping[str, object]:
    errors = content.get("error")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return errors[0]
    return {}


def _is_prose(stat: str) -> bool:
    return stat.lower().replace("_", "") not in ("ok", "notok")


def _excerpt(body: bytes) -> str:
    """Return the start of the body as text, without credentials that it may contain."""
    return _without_secrets(body[:2000].decode("utf-8", "replace"))[:BODY_EXCERPT]


def shown(value: object) -> str:
    """Return a value of an answer for an error message: short, and without credentials."""
    if isinstance(value, dict | list):
        try:
            text = msgspec.json.encode(value).decode()
        except UNREADABLE:
            text = reprlib.repr(value)
        text = _without_secrets(text[:2000])
    else:
        text = repr(_without_secrets(value[:2000]) if isinstance(value, str) else value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


_LONGEST_SHOWN = 60
"""Longest value in an error message, in characters."""


def _without_secrets(text: str) -> str:
    return _SECRET_VALUES.sub("***", _SECRET_FIELDS.sub(r"\1***", text))
