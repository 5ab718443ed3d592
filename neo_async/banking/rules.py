"""Checks of requests before anything is sent. Each rule raises InvalidField with the field, its
value and the rule; lengths and forms are those of the profile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import UNSET

from neo_async.banking.model import AccountChange, AccountStatus, VirtualAccount
from neo_async.banking.profile import BankingProfile
from neo_async.errors import InvalidField
from neo_async.model.money import rupees

_NUMBER = re.compile(r"[0-9]{1,13}(\.[0-9]{1,2})?")
_IFSC = re.compile(r"[A-Z]{4}0[A-Z0-9]{6}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_BANK_ACCOUNT = re.compile(r"[A-Z0-9]{5,34}")
_LARGEST = Decimal("1e13")

Item = dict[str, object]
"""An account by the client's names, ready to be written."""


def money(field: str, value: object) -> Decimal:
    """Return an amount of rupees above 0 with at most two decimals."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        hint = "a float is not exact: write it as text or Decimal" if type(value) is float else ""
        raise InvalidField(field, value, hint or 'must be rupees, such as "1500.00"')
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise InvalidField(field, value, 'must be rupees, such as "1500.00"')
    number = Decimal(value)
    if not number.is_finite() or not 0 < number < _LARGEST:
        raise InvalidField(field, value, "must be above 0 and below 10 million million rupees")
    try:
        return rupees(number)
    except ValueError:
        raise InvalidField(field, value, "has more than two decimals") from None


def ifsc(field: str, value: object) -> str:
    return _form(field, value, _IFSC, "must be four letters, 0 and six letters or digits")


def bank_account(field: str, value: object) -> str:
    return _form(field, value, _BANK_ACCOUNT, "must be 5 to 34 capital letters or digits")


def line(field: str, value: object, length: int, *, needed: bool = True) -> str:
    """Return a text of one line."""
    if not isinstance(value, str):
        raise InvalidField(field, value, "must be text")
    if len(value) > length or (needed and not value.strip()):
        raise InvalidField(field, value, f"must be of {1 if needed else 0} to {length} characters")
    if not value.isprintable():
        raise InvalidField(field, value, "must be printable and of one line")
    return value


class AccountRules:
    """Checks accounts by the forms of one bank."""

    def __init__(self, profile: BankingProfile) -> None:
        self._rules = profile.rules
        self._number = re.compile(profile.rules.virtual_account)
        self._physical = re.compile(profile.rules.physical_account)
        self._mobile = re.compile(profile.rules.mobile)
        self._key = re.compile(profile.rules.request_id)

    def client_name(self, value: object) -> str:
        return line("client_name", value, self._rules.client_name_length)

    def reference(self, field: str, value: object) -> str:
        return line(field, value, self._rules.reference_length)

    def key(self, value: object) -> str:
        return _form("idempotency_key", value, self._key)

    def reason(self, value: object) -> str:
        return line("reason", value, self._rules.reason_length, needed=False)

    def physical_account(self, value: object) -> str:
        if value == "":
            raise InvalidField(
                "physical_account",
                value,
                "must be given, here or as [customer] physical_account of the profile (the shell "
                "also reads KOTAK_BANK_PHYSICAL_ACCOUNT)",
            )
        return _form("physical_account", value, self._physical)

    def new_accounts(self, accounts: VirtualAccount | Iterable[VirtualAccount]) -> list[Item]:
        return self._checked(accounts, VirtualAccount, self._new)

    def changes(self, changes: AccountChange | Iterable[AccountChange]) -> list[Item]:
        return self._checked(changes, AccountChange, self._change)

    def numbers(self, numbers: str | Iterable[str]) -> list[Item]:
        if isinstance(numbers, str):
            numbers = [numbers]
        items: list[Item] = [
            {"number": _form(f"numbers[{place}]", number, self._number)}
            for place, number in enumerate(numbers)
        ]
        return _without_repeats("numbers[{}]", items)

    def _checked(self, accounts: Any, kind: type[msgspec.Struct], check: Any) -> list[Item]:
        if isinstance(accounts, kind):
            accounts = [accounts]
        items = []
        for place, account in enumerate(accounts):
            if not isinstance(account, kind):
                rule = f"must be of type {kind.__name__}"
                raise InvalidField(f"accounts[{place}]", account, rule)
            items.append(check(f"accounts[{place}].", account))
        return _without_repeats("accounts[{}].number", items)

    def _new(self, at: str, account: VirtualAccount) -> Item:
        given = {
            name: value
            for name, value in msgspec.structs.asdict(account).items()
            if value is not None
        }
        return self._item(at, given)

    def _change(self, at: str, change: AccountChange) -> Item:
        given = {
            name: value
            for name, value in msgspec.structs.asdict(change).items()
            if value is not UNSET
        }
        if len(given) < 2:
            raise InvalidField(at.rstrip("."), change.number, "no field is to be changed")
        return self._item(at, given)

    def _item(self, at: str, given: Mapping[str, Any]) -> Item:
        item: Item = {}
        for name, value in given.items():
            if value is None and name not in ("number", "name", "status"):
                item[name] = None  # cleared
            else:
                item[name] = self._value(at, name, value)
        _check_order(at, item, "valid_from", "valid_to", "must not be after valid_to")
        _check_order(at, item, "min_amount", "max_amount", "must not be above max_amount")
        return item

    def _value(self, at: str, name: str, value: object) -> object:
        field = at + name
        if name == "number":
            return _form(field, value, self._number)
        if name in ("valid_from", "valid_to"):
            return _day(field, value)
        if name in ("min_amount", "max_amount"):
            return money(field, value)
        if name == "mobile":
            return _form(field, value, self._mobile)
        if name == "status":
            return _new_status(field, value)
        length: int = getattr(self._rules, f"{name}_length")
        words = line(field, value, length)
        if name == "email":
            _form(field, words, _EMAIL, "must be like name@example.com")
        return words


def _form(field: str, value: object, form: re.Pattern[str], rule: str = "") -> str:
    if not isinstance(value, str):
        raise InvalidField(field, value, "must be text")
    if not form.fullmatch(value) or not value.isprintable():
        raise InvalidField(field, value, rule or f"must be of the form {form.pattern}")
    return value


def _day(field: str, value: object) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise InvalidField(field, value, "must be a date")
    return value


def _new_status(field: str, value: object) -> AccountStatus:
    if value not in (AccountStatus.ACTIVE, AccountStatus.BLOCKED):
        raise InvalidField(field, value, "must be ACTIVE or BLOCKED; delete() deletes")
    return AccountStatus(str(value))


def _check_order(at: str, item: Mapping[str, Any], low: str, high: str, rule: str) -> None:
    first, last = item.get(low), item.get(high)
    if first is not None and last is not None and first > last:
        raise InvalidField(at + low, str(first), f"{rule} ({last})")


def _without_repeats(field: str, items: list[Item]) -> list[Item]:
    places: dict[object, int] = {}
    for place, item in enumerate(items):
        first = places.setdefault(item["number"], place)
        if first != place:
            rule = f"is named twice, at {field.format(first)} already"
            raise InvalidField(field.format(place), item["number"], rule)
    if not items:
        raise InvalidField(field.partition("[")[0], [], "must name at least one account")
    return items
