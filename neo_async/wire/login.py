"""The two login steps: forms out, answers in. Field names are the wire's own."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from neo_async.model.answer import Answer
from neo_async.wire.answers import failure
from neo_async.wire.lenient import UNREADABLE, decode

LONGEST_HEADER: Final = 8000
"""Characters of a token or a sid; servers take header lines of about 8 KiB."""
_LONGEST_NAME: Final = 64

_HEADER: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def header_problem(value: str) -> str:
    """Why a token or a sid can be no header's value, without the value; empty when it can."""
    if not isinstance(value, str) or not value:
        return "is empty or no text"
    if len(value) > LONGEST_HEADER:
        return f"is longer than {LONGEST_HEADER} characters"
    if not _HEADER.fullmatch(value):
        return "holds line ends, or letters beyond ASCII"
    return ""


class _Unprinted(msgspec.Struct):
    """Holds secrets, and shows none of its fields."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return []


class LoginForm(_Unprinted):
    """`POST /login/1.0/tradeApiLogin`, a JSON body."""

    mobileNumber: str  # noqa: N815 - the wire's name
    ucc: str
    totp: str


class ValidateForm(_Unprinted):
    """`POST /login/1.0/tradeApiValidate`, a JSON body."""

    mpin: str


class LoginAnswer(_Unprinted, kw_only=True):
    """`data` of both steps. The first gives a view token, the second a trade token and the URLs."""

    token: str
    sid: str
    status: str = "success"
    kType: str = ""  # noqa: N815
    ucc: str = ""
    baseUrl: str | None = None  # noqa: N815
    feedUrl: str | None = None  # noqa: N815
    rtUrl: str | None = None  # noqa: N815
    dataCenter: str | None = None  # noqa: N815

    @property
    def problem(self) -> str:
        """Which of its values can go into no request, and why; empty when all can. Values of
        secrets are not in it."""
        for name in ("token", "sid"):
            if problem := header_problem(getattr(self, name)):
                return f"its {name} {problem}"
        for name in ("ucc", "dataCenter"):
            value = getattr(self, name) or ""
            if len(value) > _LONGEST_NAME or not value.isprintable():
                return f"its {name} is longer than {_LONGEST_NAME} characters or cannot be printed"
        return ""


class _Envelope(msgspec.Struct):
    data: LoginAnswer


_envelope = msgspec.json.Decoder(_Envelope)


def read_login(answer: Answer) -> LoginAnswer:
    """Success is 2xx, `data` an object, its status `success`, its token not empty; everything
    else is a failure, HTTP 200 included."""
    if 200 <= answer.status < 300:
        try:
            data = decode(_envelope, answer.body).data
        except UNREADABLE:
            raise failure(answer) from None
        if data.status == "success" and data.token and data.sid:
            return data
    raise failure(answer)
