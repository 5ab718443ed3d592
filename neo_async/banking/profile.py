"""The format of a bank: paths, field names, status words, dates, amounts, limits.

Kotak shares the request format of its virtual account services with each customer privately, so no
name of it is in the code. The defaults here are a complete contract of this package, which the
embedded bank implements; put what differs at your bank into a TOML file:

    [server]
    base_url = "https://apigwuat.kotak.com:8443"
    [customer]
    client_name = "ACME"
    physical_account = "1234567890"
    [paths]
    fetch = "/VirtualAccount/v2/TxnDetails"
    [request.fetch]
    client_name = "ClientHeader.ClientName"
    [response.fetch]
    transactions = "TxnList[]"
    "transactions.reference" = "TxnRefNo"
    "transactions.amount" = "TxnAmt"
    [format]
    datetime = "%d-%m-%Y %H:%M:%S"
    amount = "number"
    [status_words.mode]
    N = "NEFT"

The left side is this package's name, the right side the bank's: a dotted path into the JSON, with
`[]` for a list. `accounts.name` is a field of each item of `accounts`. An empty path means that the
bank has no such field. `neo-async bank profile` prints every key with its default.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from neo_async.banking.model import AccountStatus, RefundStatus, Refusal
from neo_async.banking.names import CODES, INDISPENSABLE, LISTS, REQUEST, RESPONSE, Call
from neo_async.config import variable_reader
from neo_async.errors import UsageError
from neo_async.model.address import address_problem, is_on_this_machine, shown_address


class Auth(StrEnum):
    """The kind of authentication."""

    OAUTH2 = "oauth2"
    """A bearer token, requested with client id and secret (client credentials)."""
    API_KEY = "apikey"
    """The client id itself, as a parameter of every address."""


class AmountForm(StrEnum):
    """The bank's form of 1,500 rupees. All of them are read and written without a binary float."""

    STRING = "string"
    """Text: `"1500.00"`."""
    NUMBER = "number"
    """A number: `1500.00`."""
    PAISE = "paise"
    """A number of paise: `150000`."""


class AckMode(StrEnum):
    """The way in which a batch is acknowledged."""

    SEPARATE_CALL = "separate_call"
    IN_NEXT_FETCH = "in_next_fetch"
    """The next request for credits acknowledges the batch; see `ack_…` of `request.fetch`."""


ISO: Final = "iso"
"""Name of the ISO form of dates and times: `2026-11-19`, `2026-11-19T10:15:02+05:30`."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Server(_Section, frozen=True, kw_only=True):
    """Addresses of the bank, authentication and timeouts."""

    base_url: str = "https://apigw.kotak.com:8443"
    token_path: str = "/auth/oauth/v2/token"  # noqa: S105 - an address
    auth: Auth = Auth.OAUTH2
    apikey_param: str = "apikey"
    request_id_header: str = "X-Request-Id"
    extra_headers: dict[str, str] = {}
    timeout: float = 30.0
    """Seconds for one answer, and for waiting after a 429."""
    connect_timeout: float = 5.0
    ca_file: str = ""
    """PEM file of the authority to trust instead of the system's."""
    insecure: bool = False
    """Allow plain http to other machines: client secret, tokens and payments then cross the network
    in clear text."""

    def __repr__(self) -> str:
        # Headers may hold credentials.
        return f"Server(base_url={self.base_url!r}, auth={self.auth.value!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("base_url", self.base_url), ("auth", self.auth.value)]


class Customer(_Section, frozen=True, kw_only=True):
    """The customer's names at the bank, where the arguments of `VirtualAccounts` do not give
    them."""

    client_name: str = ""
    physical_account: str = ""


class Plan(_Section, frozen=True, kw_only=True):
    """The rate limits of the customer's plan."""

    requests_per_second: int = 5
    requests_per_day: int = 10_000
    """Most requests per calendar day in India; 0 for no limit."""


class Paths(_Section, frozen=True, kw_only=True):
    """Path of each call after the base URL; empty where the bank does not offer it. A method may
    precede the path (`GET /va/refunds`); the default is POST. GET sends fields as a query."""

    create: str = "/va/v1/accounts/create"
    modify: str = "/va/v1/accounts/modify"
    delete: str = "/va/v1/accounts/delete"
    inquiry: str = "/va/v1/accounts/inquiry"
    fetch: str = "/va/v1/transactions/fetch"
    ack: str = "/va/v1/transactions/ack"
    refund: str = "/va/v1/refunds/create"
    refund_status: str = "/va/v1/refunds/status"


class ErrorWords(_Section, frozen=True, kw_only=True):
    """The form of refusals: paths into the answer, and the words of its `status`."""

    code: str = "errorCode"
    message: str = "message"
    field: str = "field"
    success_values: tuple[str, ...] = ("SUCCESS",)
    partial_values: tuple[str, ...] = ("PARTIAL",)
    failure_values: tuple[str, ...] = ("FAILURE",)
    """Words of a refusal. Any other word may mean that the request is being processed, so its
    outcome is looked up."""


class StatusWords(_Section, frozen=True, kw_only=True):
    """The client's words by the bank's. A word that is the same in both need not be listed."""

    account: dict[str, str] = {}
    """States of an account: ACTIVE, BLOCKED, DELETED."""
    refund: dict[str, str] = {}
    """States of a refund: INITIATED, PROCESSING, SUCCESS, FAILED, REJECTED."""
    mode: dict[str, str] = {}
    """Modes of payment: NEFT, RTGS, IMPS, UPI, IFT; words that are not listed are kept."""


class Format(_Section, frozen=True, kw_only=True):
    """The form of dates and amounts, and the size of requests."""

    date: str = ISO
    """Form of dates: `iso`, or one of strptime: `%d-%m-%Y`."""
    datetime: str = ISO
    timezone: str = "+05:30"
    """Time zone of times without one."""
    amount: AmountForm = AmountForm.STRING
    max_items: int = 100
    """Most accounts in one request."""


class Rules(_Section, frozen=True, kw_only=True):
    """The forms of values that the bank accepts: regular expressions, and lengths in characters."""

    virtual_account: str = "[A-Z0-9]{6,20}"
    physical_account: str = "[0-9]{8,18}"
    mobile: str = r"\+91[0-9]{10}"
    request_id: str = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    """Form of idempotency keys from the caller; generated ones are UUIDs."""
    client_name_length: int = 40
    name_length: int = 80
    email_length: int = 80
    description_length: int = 100
    reference_length: int = 64
    reason_length: int = 100


class Ack(_Section, frozen=True, kw_only=True):
    """The acknowledgement of a batch."""

    mode: AckMode = AckMode.SEPARATE_CALL
    value: str = "RECEIVED"
    """Value of `status` in the acknowledgement."""


class Idempotency(_Section, frozen=True, kw_only=True):
    """Whether the bank answers a repeated request with its first answer. The key is the request
    id."""

    offered: bool = True
    header: str = "Idempotency-Key"
    """Header of the key; empty where the request id in the body suffices."""


class BankingProfile(_Section, frozen=True, kw_only=True):
    """The format of one bank. Raises UsageError that names the invalid key.

    `BankingProfile()` is the default contract; `BankingProfile.load("bank.toml")` reads a file.
    `request`, `response` and `constants` map a call to `{name: path}`, where missing names keep
    their defaults; `constants` are paths of a request that always have the same value.
    """

    server: Server = Server()
    customer: Customer = Customer()
    plan: Plan = Plan()
    paths: Paths = Paths()
    request: Mapping[str, Mapping[str, str]] = {}
    constants: Mapping[str, Mapping[str, Any]] = {}
    response: Mapping[str, Mapping[str, str]] = {}
    error: ErrorWords = ErrorWords()
    codes: Mapping[str, Refusal] = {}
    status_words: StatusWords = StatusWords()
    format: Format = Format()
    rules: Rules = Rules()
    ack: Ack = Ack()
    idempotency: Idempotency = Idempotency()

    def __post_init__(self) -> None:
        complete = msgspec.structs.force_setattr
        complete(self, "request", _completed("request", self.request, REQUEST))
        complete(self, "response", _completed("response", self.response, RESPONSE))
        complete(self, "codes", {**CODES, **self.codes})
        _check_calls("constants", self.constants)
        _check(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BankingProfile:
        """Read a profile from a TOML file. Raises UsageError that names file and key, and
        OSError."""
        try:
            with Path(path).open("rb") as file:
                return cls.of(tomllib.load(file))
        except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, or 5,000 digits
            raise UsageError(f"profile {path}: {error}") from error
        except UsageError as error:
            raise UsageError(f"profile {path}: {error}") from error

    @classmethod
    def of(cls, sections: Mapping[str, Any]) -> BankingProfile:
        """Return a profile from the content of such a file. Raises UsageError that names the
        key."""
        _check_keys(sections)
        for name in ("request", "response"):
            _check_tables(name, sections.get(name, {}))
        try:
            return msgspec.convert(sections, cls)
        except msgspec.ValidationError as error:
            problem, _, place = str(error).partition(" - at ")
            where = place.strip("`").removeprefix("$.") or "the profile"
            raise UsageError(f"{where}: {problem}") from error

    def at_server_of_environment(self) -> BankingProfile:
        """Return the profile with `KOTAK_BANK_URL` as the bank's address, where that is set;
        `KOTAK_BANK_INSECURE=1` is its `insecure`."""
        read = variable_reader()
        url = read("KOTAK_BANK_URL")
        if not url:
            return self
        insecure = read("KOTAK_BANK_INSECURE") == "1" or self.server.insecure
        server = msgspec.structs.replace(self.server, base_url=url, insecure=insecure)
        return msgspec.structs.replace(self, server=server)

    @property
    def is_paper(self) -> bool:
        """Whether the bank is on this machine, as the embedded one is."""
        return is_on_this_machine(self.server.base_url)

    @property
    def timezone(self) -> tzinfo:
        zone = datetime.strptime(self.format.timezone, "%z").tzinfo
        assert zone is not None
        return zone

    def path(self, call: Call) -> str:
        """Return method and path of a call; empty where the bank does not offer it."""
        path: str = getattr(self.paths, call)
        return path if " " in path or not path else f"POST {path}"

    def __repr__(self) -> str:
        return f"<BankingProfile of {self.server.base_url}>"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("base_url", self.server.base_url)]


def _completed(
    section: str,
    given: Mapping[str, Mapping[str, str]],
    defaults: Mapping[str, Mapping[str, str]],
) -> dict[str, dict[str, str]]:
    _check_calls(section, given)
    for call, names in given.items():
        for meaning, path in names.items():
            if meaning not in defaults[call]:
                known = ", ".join(defaults[call])
                raise UsageError(f"{section}.{call}.{meaning}: unknown key; known are {known}")
            _check_path(f"{section}.{call}.{meaning}", meaning, path)
    complete = {str(call): {**names, **given.get(call, {})} for call, names in defaults.items()}
    for call, names in complete.items():
        for meaning in INDISPENSABLE.get(f"{section}.{call}", ()):
            if not names[meaning]:
                raise UsageError(f"{section}.{call}.{meaning}: must not be empty")
    return complete


def _check_calls(section: str, given: Mapping[str, object]) -> None:
    for call in given:
        if call not in REQUEST:
            raise UsageError(f"{section}.{call}: unknown key; known are {', '.join(REQUEST)}")


def _check_keys(sections: Mapping[str, Any]) -> None:
    """Check the keys here, because msgspec's error does not list the known ones."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(BankingProfile)}
    _check_known("", sections, kinds)
    for name, section in sections.items():
        if isinstance(section, Mapping) and hasattr(kinds[name], "__struct_fields__"):
            _check_known(f"{name}.", section, kinds[name].__struct_fields__)


def _check_known(section: str, keys: Iterable[str], known: Iterable[str]) -> None:
    for key in keys:
        if key not in known:
            raise UsageError(f"{section}{key}: unknown key; known are {', '.join(known)}")


def _check_tables(section: str, calls: object) -> None:
    """Check the tables here, because msgspec's error does not name a key of a mapping."""
    if not isinstance(calls, Mapping):
        raise UsageError(f"{section}: must be a table of calls")
    for call, names in calls.items():
        if not isinstance(names, Mapping):
            raise UsageError(f"{section}.{call}: must be a table of names")
        for meaning, path in names.items():
            if not isinstance(path, str):
                raise UsageError(
                    f"{section}.{call}.{meaning}: must be a path as text; the fields of a list "
                    f'are keys such as "{meaning}.…", in quotes'
                )


_STEP = r"[^.\[\]\s]+"
_PATH = re.compile(rf"{_STEP}(\.{_STEP})*")


def _check_path(key: str, meaning: str, path: str) -> None:
    if not path:
        return
    is_list = meaning in LISTS
    if is_list != path.endswith("[]"):
        rule = "must end with [], for it is a list" if is_list else "is no list, so without []"
        raise UsageError(f"{key}={path!r}: {rule}")
    if not _PATH.fullmatch(path.removesuffix("[]")):
        raise UsageError(f"{key}={path!r}: must be names with dots between them")


_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _check(profile: BankingProfile) -> None:
    server, form = profile.server, profile.format
    if problem := address_problem(server.base_url, insecure=server.insecure, is_base=True):
        raise UsageError(f"server.base_url={shown_address(server.base_url)}: {problem}")
    if not re.fullmatch(r"/[!-~]*", server.token_path):
        raise UsageError(f"server.token_path={server.token_path!r}: must be /path")
    for name, value in server.extra_headers.items():
        if not (_HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable()):
            # The value may be a credential.
            raise UsageError(
                f"server.extra_headers.{name}: must be a header's name and printable ASCII"
            )
    for key, header in (
        ("server.request_id_header", server.request_id_header),
        ("idempotency.header", profile.idempotency.header),
    ):
        if header and not _HEADER_NAME.fullmatch(header):
            raise UsageError(f"{key}={header!r}: must be a header's name")
    for section, names in (
        ("server", ("timeout", "connect_timeout")),
        ("plan", ("requests_per_second",)),
        ("format", ("max_items",)),
    ):
        for name in names:
            value = getattr(getattr(profile, section), name)
            if not value > 0:
                raise UsageError(f"{section}.{name}={value!r}: must be above 0")
    if profile.plan.requests_per_day < 0:
        raise UsageError(
            f"plan.requests_per_day={profile.plan.requests_per_day}: must be 0 (no limit) or more"
        )
    for call in Call:
        path = profile.path(call)
        if path and not re.fullmatch(r"(GET|POST|PUT|PATCH|DELETE) /\S*", path):
            given = getattr(profile.paths, call)
            raise UsageError(f"paths.{call}={given!r}: must be /path or METHOD /path")
    try:
        _ = profile.timezone
    except ValueError:
        raise UsageError(f"format.timezone={form.timezone!r}: must be like +05:30") from None
    for name in ("virtual_account", "physical_account", "mobile", "request_id"):
        pattern = getattr(profile.rules, name)
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(f"rules.{name}={pattern!r}: {error}") from None
    _check_words("account", profile.status_words.account, AccountStatus)
    _check_words("refund", profile.status_words.refund, RefundStatus)
    if (
        profile.ack.mode is AckMode.IN_NEXT_FETCH
        and not profile.request[Call.FETCH]["ack_batch_id"]
    ):
        raise UsageError("request.fetch.ack_batch_id: must be given when ack.mode is in_next_fetch")


def _check_words(kind: str, words: Mapping[str, str], ours: type[StrEnum]) -> None:
    for word, meaning in words.items():
        if meaning not in set(ours):
            known = ", ".join(ours)
            raise UsageError(f"status_words.{kind}.{word}={meaning!r}: must be one of {known}")
