"""Map the client's names and values to the bank's JSON, as defined by a profile. Pure functions,
compiled once."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, tzinfo
from decimal import Decimal
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import urlencode

import msgspec

from neo_async.banking.model import AccountStatus
from neo_async.banking.names import Call
from neo_async.banking.profile import ISO, AmountForm, BankingProfile
from neo_async.base import logs
from neo_async.model import money

log = logging.getLogger(logs.BANKING)

T = TypeVar("T")

Json: TypeAlias = dict[str, Any]
Getter: TypeAlias = Callable[[Json], Any]


def _number(text: str) -> Decimal | str:
    """Return a number of the answer as a Decimal; one out of range stays text."""
    try:
        return money.exact(text)
    except ValueError:
        return text


decode: Final = msgspec.json.Decoder(float_hook=_number).decode
"""Decodes JSON without binary floats: whole numbers become int, others Decimal."""


class Unreadable(ValueError):
    """A value is not of the form that the profile defines; the text has both."""


def getter(path: str) -> Getter:
    """Return a function that reads a path of a decoded object; it returns None for a missing
    one."""
    if not path:
        return lambda item: None
    first, *rest = path.split(".")
    if not rest:
        return lambda item: item.get(first)

    def get(item: Json) -> Any:
        value = item.get(first)
        for step in rest:
            if not isinstance(value, dict):
                return None
            value = value.get(step)
        return value

    return get


def list_getter(path: str) -> Callable[[Json], list[Any] | None]:
    """Return a function that reads a list of a decoded object; it returns None when it is absent,
    and raises Unreadable when the value is not a list. The rows may be of any type."""
    get = getter(path.removesuffix("[]"))

    def get_list(item: Json) -> list[Any] | None:
        value = get(item)
        if value is not None and not isinstance(value, list):
            raise Unreadable(f"{path} is not a list")
        return value

    return get_list


def put(tree: Json, path: str, value: object) -> None:
    """Set the value at a path, and create the objects on the way."""
    *way, last = path.split(".")
    for step in way:
        tree = tree.setdefault(step, {})
    tree[last] = value


class Formats:
    """Dates, times and amounts in the bank's form. None and "" are read as None; a value that is
    not of the form raises Unreadable."""

    def __init__(self, profile: BankingProfile) -> None:
        form = profile.format
        self._date = form.date
        self._datetime = form.datetime
        self._amount = form.amount
        self._zone: tzinfo = profile.timezone
        self._account_words = {ours: word for word, ours in profile.status_words.account.items()}

    def write(self, value: object) -> object:
        """Return a value for JSON; `encoder` decides how Decimals are written."""
        if isinstance(value, Decimal):
            if self._amount is AmountForm.PAISE:
                return money.to_paise(value)
            return money.rupees(value)
        if isinstance(value, AccountStatus):
            return self._account_words.get(value, value.value)
        if isinstance(value, date):
            return value.isoformat() if self._date == ISO else value.strftime(self._date)
        return value

    @property
    def encoder(self) -> msgspec.json.Encoder:
        is_number = self._amount is AmountForm.NUMBER
        return msgspec.json.Encoder(decimal_format="number" if is_number else "string")

    def read_amount(self, value: object) -> Decimal | None:
        if value is None or value == "":
            return None
        try:
            number = money.exact(value)  # type: ignore[arg-type]
            is_paise = self._amount is AmountForm.PAISE
            return money.from_paise(number) if is_paise else money.rupees(number)
        except ValueError:
            raise Unreadable(f"{reprlib.repr(value)} is no amount") from None

    def read_date(self, value: object) -> date | None:
        if value is None or value == "":
            return None
        try:
            if self._date == ISO:
                return date.fromisoformat(str(value))
            return datetime.strptime(str(value), self._date).replace(tzinfo=self._zone).date()
        except ValueError:
            raise Unreadable(f"{reprlib.repr(value)} is no date of the form {self._date}") from None

    def read_time(self, value: object) -> datetime | None:
        if value is None or value == "":
            return None
        try:
            if self._datetime == ISO:
                time = datetime.fromisoformat(str(value))
            else:
                time = datetime.strptime(str(value), self._datetime)  # noqa: DTZ007
        except ValueError:
            raise Unreadable(
                f"{reprlib.repr(value)} is no time of the form {self._datetime}"
            ) from None
        return time if time.tzinfo is not None else time.replace(tzinfo=self._zone)


def text(value: object) -> str:
    """Return a text, which some banks send as a number, and leave out or null when empty. Any other
    value is returned as its JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return format(value, "f" if isinstance(value, Decimal) else "d")
    return msgspec.json.encode(value).decode()


def count(value: object) -> int | None:
    """Return a whole number; None when there is none. Raises Unreadable."""
    if type(value) is int:
        return value
    if value is None or value == "":
        return None
    try:
        number = money.exact(value)  # type: ignore[arg-type]
    except ValueError:
        number = None
    if number is None or number != int(number):
        raise Unreadable(f"{reprlib.repr(value)} is no whole number")
    return int(number)


def known(read: Callable[[object], T | None], name: str, value: object) -> T | None:
    """Return what `read` reads from a field on which no other depends: None, with a line in the
    log, when it is unreadable."""
    try:
        return read(value)
    except Unreadable as error:
        log.warning("%s is taken as unknown: %s", name, error)
        return None


class Outgoing(msgspec.Struct, frozen=True):
    """A request, which can be sent any number of times."""

    call: Call
    method: str
    url: str
    """Address of the call, including the query of a GET."""
    body: bytes
    key: str
    """Request id and idempotency key."""

    def __repr__(self) -> str:
        return f"<{self.call} {self.key}>"


class Writer:
    """Writes the requests of one call in the bank's names."""

    def __init__(self, profile: BankingProfile, call: Call, formats: Formats) -> None:
        self._call = call
        self._method, _, path = profile.path(call).partition(" ")
        self._url = profile.server.base_url.rstrip("/") + path
        self._names = profile.request[call]
        self._constants = profile.constants.get(call, {})
        self._write = formats.write
        self._encode = formats.encoder.encode

    def request(
        self,
        values: Mapping[str, object],
        *,
        key: str,
        items: Sequence[Mapping[str, object]] | None = None,
    ) -> Outgoing:
        """Return a request. `values` and each of `items` (the accounts) are by the client's names;
        values for which the bank has no name are left out."""
        tree: Json = {}
        rows: list[Json] | None = None
        if items is not None:
            rows = [self._filled(item, "accounts.") for item in items]
            put(tree, self._names["accounts"].removesuffix("[]"), rows)
        self._fill(tree, {"request_id": key, **values}, "")
        for path, value in self._constants.items():
            way, marker, field = path.partition("[].")
            for target in (rows or []) if marker else [tree]:
                put(target, field if marker else way, value)
        if self._method == "GET":
            query = urlencode({name: value for name, value in tree.items() if value is not None})
            return Outgoing(self._call, "GET", f"{self._url}?{query}", b"", key)
        return Outgoing(self._call, self._method, self._url, self._encode(tree), key)

    def has_field(self, meaning: str) -> bool:
        """Return whether the bank has a field for it."""
        return bool(self._names[meaning])

    def _filled(self, values: Mapping[str, object], prefix: str) -> Json:
        tree: Json = {}
        self._fill(tree, values, prefix)
        return tree

    def _fill(self, tree: Json, values: Mapping[str, object], prefix: str) -> None:
        for meaning, value in values.items():
            if path := self._names[prefix + meaning]:
                put(tree, path, self._write(value))
