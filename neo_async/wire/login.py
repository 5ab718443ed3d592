"""The two login steps: forms out, answers in. Field names are the wire's own."""

from __future__ import annotations

import msgspec

from neo_async.model.answer import Answer
from neo_async.wire.answers import failure
from neo_async.wire.lenient import UNREADABLE, decode


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
