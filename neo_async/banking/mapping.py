"""Between our meanings and the bank's JSON, as a profile says. Compiled once, pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, tzinfo
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import msgspec

from neo_async.banking.model import AccountStatus
from neo_async.banking.names import Call
from neo_async.banking.profile import ISO, AmountForm, BankingProfile

Json: TypeAlias = dict[str, Any]
Getter: TypeAlias = Callable[[Json], Any]

PAISA: Final = Decimal("0.01")
_EXACT: Final = Context(prec=28, traps=[Inexact, InvalidOperation])
_PLAIN: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,10})?")

decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode
"""JSON whose numbers never were a binary float: whole ones become int, others Decimal."""


class Unreadable(ValueError):
    """A value that is not of the form which the profile says; the text names both."""


def rupees(value: Decimal) -> Decimal:
    """With two digits behind the point. Raises Unreadable when that is not the same amount."""
    try:
        return value.quantize(PAISA, context=_EXACT)
    except (Inexact, InvalidOperation):
        raise Unreadable(f"{value} is no amount in rupees and paise") from None


def getter(path: str) -> Getter:
    """What reads a path out of a decoded object; None where it leads nowhere."""
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


def list_getter(path: str) -> Callable[[Json], list[Json] | None]:
    """The same of a list of objects. None when it is absent; raises Unreadable when it is none."""
    get = getter(path.removesuffix("[]"))

    def get_list(item: Json) -> list[Json] | None:
        value = get(item)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise Unreadable(f"{path} is no list of objects")
        return value

    return get_list


def put(tree: Json, path: str, value: object) -> None:
    """Set what is at a path, and make the objects on the way."""
    *way, last = path.split(".")
    for step in way:
        tree = tree.setdefault(step, {})
    tree[last] = value


class Formats:
    """Dates, times and amounts in the bank's form, both ways. None and "" are read as None."""

    def __init__(self, profile: BankingProfile) -> None:
        form = profile.format
        self._date = form.date
        self._datetime = form.datetime
        self._amount = form.amount
        self._zone: tzinfo = profile.timezone
        self._account_words = {ours: word for word, ours in profile.status_words.account.items()}

    def write(self, value: object) -> object:
        """A value as it goes into JSON; see `encoder` for what becomes of Decimals."""
        if isinstance(value, Decimal):
            if self._amount is AmountForm.PAISE:
                return int(value.scaleb(2))
            return rupees(value)
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
        is_text = isinstance(value, str) and _PLAIN.fullmatch(value) is not None
        is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
        if not (is_text or is_number):
            raise Unreadable(f"{value!r} is no amount")
        number = Decimal(value)  # type: ignore[arg-type]
        return rupees(number.scaleb(-2) if self._amount is AmountForm.PAISE else number)

    def read_date(self, value: object) -> date | None:
        if value is None or value == "":
            return None
        try:
            if self._date == ISO:
                return date.fromisoformat(str(value))
            return datetime.strptime(str(value), self._date).replace(tzinfo=self._zone).date()
        except ValueError:
            raise Unreadable(f"{value!r} is no date of the form {self._date}") from None

    def read_time(self, value: object) -> datetime | None:
        if value is None or value == "":
            return None
        try:
            if self._datetime == ISO:
                time = datetime.fromisoformat(str(value))
            else:
                time = datetime.strptime(str(value), self._datetime)  # noqa: DTZ007
        except ValueError:
            raise Unreadable(f"{value!r} is no time of the form {self._datetime}") from None
        return time if time.tzinfo is not None else time.replace(tzinfo=self._zone)


def text(value: object) -> str:
    """Text that some banks send as numbers, and leave out or null when there is none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    raise Unreadable(f"{value!r} is no text")


def count(value: object) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Unreadable(f"{value!r} is no whole number")
    try:
        return int(value)
    except ValueError:
        raise Unreadable(f"{value!r} is no whole number") from None


class Outgoing(msgspec.Struct, frozen=True):
    """A request, ready to be sent as often as it takes."""

    call: Call
    method: str
    url: str
    """With the query, where the fields travel in one."""
    body: bytes
    key: str
    """Request id and idempotency key."""

    def __repr__(self) -> str:
        return f"<{self.call} {self.key}>"


class Writer:
    """Puts what we mean into the bank's words, one call's."""

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
        """`values` and each of `items` (the accounts) map our meanings to values. What the bank
        has no name for is left out."""
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

    def knows(self, meaning: str) -> bool:
        """Whether the bank has a field for it."""
        return bool(self._names[meaning])

    def _filled(self, values: Mapping[str, object], prefix: str) -> Json:
        tree: Json = {}
        self._fill(tree, values, prefix)
        return tree

    def _fill(self, tree: Json, values: Mapping[str, object], prefix: str) -> None:
        for meaning, value in values.items():
            if path := self._names[prefix + meaning]:
                put(tree, path, self._write(value))
