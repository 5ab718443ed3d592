"""The two login steps: forms and answers. Field names are the wire's own."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

from neo_async.model.answer import Answer
from neo_async.wire.answers import failure
from neo_async.wire.lenient import UNREADABLE, decode

LONGEST_HEADER: Final = 8000
"""Longest token or sid, in characters; servers accept header lines of about 8 KiB."""
_LONGEST_NAME: Final = 64

_HEADER: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def header_problem(value: str) -> str:
    """Return why a token or a sid is not valid in a header, without the value; empty when it is."""
    if not isinstance(value, str) or not value:
        return "is empty or no text"
    if len(value) > LONGEST_HEADER:
        return f"is longer than {LONGEST_HEADER} characters"
    if not _HEADER.fullmatch(value):
        return "holds line ends, or letters beyond ASCII"
    return ""


class _Unprinted(msgspec.Struct):
    """Base of structs with secrets: no field appears in their `repr`."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return []


class LoginForm(_Unprinted):
    """Body of `POST /login/1.0/tradeApiLogin`, as JSON."""

    mobileNumber: str  # noqa: N815 - the wire's name
    ucc: str
    totp: str


class ValidateForm(_Unprinted):
    """Body of `POST /login/1.0/tradeApiValidate`, as JSON."""

    mpin: str


class LoginAnswer(_Unprinted, kw_only=True):
    """The `data` of both steps. The first gives a view token, the second a trade token and the
    URLs."""

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
        """Name of a value that cannot be used in a request, and why, without secrets; empty when
        all can."""
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
    """Return the data of a login step. A success is 2xx with a `data` object of status `success`
    and a token; everything else is a failure, HTTP 200 included."""
    if 200 <= answer.status < 300:
        try:
            data = decode(_envelope, answer.body).data
        except UNREADABLE:
            raise failure(answer) from None
        if data.status == "success" and data.token and data.sid:
            return data
    raise failure(answer)


class _ClientAddress(msgspec.Struct):
    ip: str


class _ClientAddresses(msgspec.Struct):
    data: list[_ClientAddress]


_addresses = msgspec.json.Decoder(_ClientAddresses)


def read_client_ip(answer: Answer) -> str:
    """Return the address of the answer to `get-client-ip`. Its code of success, 1000, is its own,
    so the address itself is what counts. Raises what `failure` returns."""
    if 200 <= answer.status < 300:
        try:
            (row,) = decode(_addresses, answer.body).data
            return str(ipaddress.ip_address(row.ip.strip()))
        except UNREADABLE:
            raise failure(answer) from None
    raise failure(answer)
