"""Reading what callers send, and refusing in the bank's words what breaks its form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from neo_async.exchange.bank.types import AccountStatus, Client, Refused, VirtualAccount
from neo_async.wire.lenient import UNREADABLE

T = TypeVar("T")

MAX_ITEMS: Final = 100

_PLACE = re.compile(r" - at `\$\.?(.*)`$")

_Uuid = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")]
_Name = Annotated[str, Meta(min_length=1, max_length=40)]
_Physical = Annotated[str, Meta(pattern=r"^[0-9]{8,18}\Z")]
_Number = Annotated[str, Meta(pattern=r"^[A-Z0-9]{6,20}\Z")]
_Money = Annotated[str, Meta(pattern=r"^[0-9]{1,13}\.[0-9]{2}\Z")]
_Holder = Annotated[str, Meta(min_length=1, max_length=80)]
_Mobile = Annotated[str, Meta(pattern=r"^\+91[0-9]{10}\Z")]
_Email = Annotated[str, Meta(max_length=80)]
_Description = Annotated[str, Meta(max_length=100)]


class _Form(msgspec.Struct, rename="camel", kw_only=True):
    """Unknown keys are ignored, as gateways do."""


class Head(_Form):
    """The head of every request."""

    request_id: str = ""


class AccountsForm(_Form):
    """Create, modify and delete."""

    request_id: _Uuid
    client_name: _Name
    physical_account: _Physical
    accounts: list[msgspec.Raw]


class InquiryForm(_Form):
    request_id: _Uuid
    physical_account: _Physical
    accounts: list[msgspec.Raw]


class NumberItem(_Form):
    virtual_account_number: _Number


class NewItem(NumberItem):
    name: _Holder
    valid_from: date | None = None
    valid_to: date | None = None
    min_amount: _Money | None = None
    max_amount: _Money | None = None
    mobile: _Mobile | None = None
    email: _Email | None = None
    description: _Description | None = None

    def account(self, client: Client, physical: str) -> VirtualAccount:
        return VirtualAccount(
            number=self.virtual_account_number,
            client=client.name,
            physical_account=physical,
            name=self.name,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
            min_amount=_paise_or_none(self.min_amount),
            max_amount=_paise_or_none(self.max_amount),
            mobile=self.mobile,
            email=self.email,
            description=self.description,
        )


class ChangeItem(NumberItem):
    """Changes of a virtual account: absent fields stay, null clears."""

    name: _Holder | UnsetType = UNSET
    valid_from: date | UnsetType | None = UNSET
    valid_to: date | UnsetType | None = UNSET
    min_amount: _Money | UnsetType | None = UNSET
    max_amount: _Money | UnsetType | None = UNSET
    mobile: _Mobile | UnsetType | None = UNSET
    email: _Email | UnsetType | None = UNSET
    description: _Description | UnsetType | None = UNSET
    status: Literal["ACTIVE", "BLOCKED"] | UnsetType = UNSET

    def changes(self) -> dict[str, object]:
        """Return the fields of VirtualAccount that change."""
        changes: dict[str, object] = {}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is UNSET or name == "virtual_account_number":
                continue
            if name.endswith("_amount"):
                value = _paise_or_none(value)
            changes[name] = AccountStatus(value) if name == "status" else value
        if not changes:
            raise Refused("VA1001", "nothing to modify: name at least one field")
        return changes


class FetchForm(_Form):
    request_id: _Uuid
    client_name: _Name
    physical_account: _Physical
    cursor: str | None = None


class AckForm(_Form):
    request_id: _Uuid
    physical_account: _Physical
    batch_id: str
    count: int
    status: Literal["RECEIVED"]


class RefundForm(_Form):
    request_id: _Uuid
    client_name: _Name
    transaction_reference: str
    amount: _Money | None = None
    reason: str = ""


class RefundStatusForm(_Form):
    """A query for a refund, by the bank's reference or by the request's id."""

    request_id: _Uuid
    refund_reference: str | None = None
    original_request_id: str | None = None


class CreditForm(_Form, forbid_unknown_fields=True):
    """`POST <admin>/bank/credit`."""

    virtual_account_number: str
    amount: _Money
    mode: Annotated[str, Meta(min_length=1, max_length=10)] = "NEFT"
    remitter_name: str | None = None
    remitter_account: str | None = None
    remitter_ifsc: Annotated[str, Meta(pattern=r"^([A-Z]{4}0[A-Z0-9]{6})?\Z")] | None = None
    utr: str | None = None
    narration: str = ""
    count: Annotated[int, Meta(ge=1, le=1_000_000)] = 1


class MoveForm(_Form, forbid_unknown_fields=True):
    """`POST <admin>/bank/refund`."""

    refund_reference: str
    refund_status: str


def read_form(body: bytes, form: type[T]) -> T:
    """Read a form. Raises Refused with the field that is wrong, as `accounts[3].name`."""
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        raise _bad_field(error) from None
    except UNREADABLE as error:
        raise Refused("VA0400", f"malformed request: {error}") from None


def read_item(item: msgspec.Raw, index: int, form: type[T]) -> T:
    """Read an item of a request's list; errors name the field as seen from the request."""
    try:
        return msgspec.json.decode(item, type=form)
    except msgspec.ValidationError as error:
        raise _bad_field(error, f"accounts[{index}]") from None
    except UNREADABLE as error:
        raise Refused("VA1001", f"{error}", field=f"accounts[{index}]") from None


def read_items(items: list[msgspec.Raw]) -> list[msgspec.Raw]:
    if not 1 <= len(items) <= MAX_ITEMS:
        text = f"{len(items)} accounts: there must be from 1 to {MAX_ITEMS}"
        raise Refused("VA1005", text, field="accounts")
    return items


def number_of(item: msgspec.Raw) -> str:
    """Return the account number of an item, empty when it cannot be read."""
    try:
        content: Mapping[str, Any] = msgspec.json.decode(item, type=dict[str, Any])
    except UNREADABLE:
        return ""
    return str(content.get("virtualAccountNumber", ""))


def paise(text: str) -> int:
    """Return rupees with two decimals in paise."""
    return int(text.replace(".", ""))


def read_amount(text: str) -> int:
    """Return an amount above 0 in paise. Raises Refused."""
    amount = paise(text)
    if not amount:
        raise Refused("VA1001", f"amount {text}: must be above 0", field="amount")
    return amount


def _paise_or_none(text: str | None) -> int | None:
    return None if text is None else paise(text)


def _bad_field(error: msgspec.ValidationError, within: str = "") -> Refused:
    text = str(error)
    match = _PLACE.search(text)
    place = match.group(1) if match else ""
    field = ".".join(part for part in (within, place) if part)
    return Refused("VA1001", _PLACE.sub("", text), field=field)
