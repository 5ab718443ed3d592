"""Virtual accounts, credits and refunds, typed. Amounts are rupees as `Decimal`, exactly."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

Money: TypeAlias = Decimal | str | int
"""Rupees to send. A float is refused: `0.1` is not what it looks like."""


class Refusal(StrEnum):
    """Why the bank refused, whatever its own code for that is."""

    INPUT = "input"
    DUPLICATE = "duplicate"
    """The account number is taken."""
    UNKNOWN_ACCOUNT = "unknown_account"
    DELETED = "deleted"
    """The account was deleted; its number stays reserved."""
    UNKNOWN_BATCH = "unknown_batch"
    UNKNOWN_TRANSACTION = "unknown_transaction"
    """No such credit or refund."""
    OVER_REFUND = "over_refund"
    """More than what is left of the credit."""
    KEY_REUSED = "key_reused"
    """The idempotency key belongs to another request."""
    AUTH = "auth"
    FORBIDDEN = "forbidden"
    """Not in your plan, or not your account."""
    THROTTLE = "throttle"
    TEMPORARY = "temporary"
    OTHER = "other"


class AccountStatus(StrEnum):
    """State of a virtual account."""

    ACTIVE = "ACTIVE"
    BLOCKED = "BLOCKED"
    """Credits are refused."""
    DELETED = "DELETED"


class VirtualAccount(msgspec.Struct, frozen=True):
    """An account number that collects credits for the physical account behind it."""

    number: str
    name: str
    valid_from: date | None = None
    valid_to: date | None = None
    min_amount: Money | None = None
    """Rupees; a smaller credit is refused."""
    max_amount: Money | None = None
    mobile: str | None = None
    email: str | None = None
    description: str | None = None


class AccountChange(msgspec.Struct, frozen=True):
    """What to change of an account: what is not given stays, None clears."""

    number: str
    name: str | UnsetType = UNSET
    valid_from: date | UnsetType | None = UNSET
    valid_to: date | UnsetType | None = UNSET
    min_amount: Money | UnsetType | None = UNSET
    max_amount: Money | UnsetType | None = UNSET
    mobile: str | UnsetType | None = UNSET
    email: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    status: AccountStatus | UnsetType = UNSET
    """ACTIVE or BLOCKED."""


class Outcome(StrEnum):
    """What became of one account of a request."""

    DONE = "done"
    REFUSED = "refused"
    """The bank said why."""
    UNKNOWN = "unknown"
    """Sent, and nobody could tell what became of it. Ask the bank before sending it again."""
    NOT_SENT = "not sent"
    """Left over when a request before it failed. Sending it is safe."""


class AccountResult(msgspec.Struct, frozen=True):
    """What became of one account, in the order in which you named them."""

    number: str
    outcome: Outcome
    reason: str = ""
    """The bank's words, or what happened to the request."""
    code: str = ""
    """The bank's own."""
    refusal: Refusal | None = None

    @property
    def is_done(self) -> bool:
        return self.outcome is Outcome.DONE


class AccountState(msgspec.Struct, frozen=True):
    """An account as the bank has it."""

    number: str
    status: AccountStatus | None
    """None when the bank uses a word that the profile does not know; see `status_text`."""
    status_text: str
    name: str = ""
    valid_from: date | None = None
    valid_to: date | None = None
    min_amount: Decimal | None = None
    max_amount: Decimal | None = None
    mobile: str = ""
    email: str = ""
    description: str = ""
    unreadable: tuple[str, ...] = ()
    """Names of the fields for which the bank has a value that cannot be read; they are None
    here."""


class Credit(msgspec.Struct, frozen=True, gc=False):
    """Money that came in on a virtual account."""

    sequence: int | None
    """Rises with every credit of a physical account: the bank's order."""
    reference: str
    """The bank's transaction reference, what refunds are asked by. It is meant to be unique for
    ever; where a bank gives one to several payments (or "0" to all), each of them is a credit of
    its own here, told from the others by everything else it says."""
    account: str
    """The virtual account's number."""
    physical_account: str
    amount: Decimal
    """Rupees."""
    currency: str
    mode: str
    """NEFT, RTGS, IMPS, UPI, IFT, or another word of the bank's."""
    utr: str
    """The payment's reference between banks; not unique across modes."""
    remitter_name: str
    remitter_account: str
    remitter_ifsc: str
    narration: str
    credited_at: datetime | None
    may_be_repeated: bool = False
    """You may have had this one before: it was in your hands when the last run ended; without a
    store, the bank has sent its batch before; or its reference was handed over before with other
    content and without a `sequence` that tells the two apart. Look into your books, by more than
    the reference, before booking it."""


class RefundStatus(StrEnum):
    """State of a refund. An unseen word of the bank's becomes UNKNOWN, which is never final."""

    INITIATED = "INITIATED"
    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    """The money stays with you, and can be refunded again."""
    REJECTED = "REJECTED"
    """Refused at once, the same as FAILED otherwise."""
    UNKNOWN = "UNKNOWN"

    @property
    def is_final(self) -> bool:
        return self in (RefundStatus.SUCCESS, RefundStatus.FAILED, RefundStatus.REJECTED)


class Refund(msgspec.Struct, frozen=True):
    """A refund as the bank tells of it."""

    refund_reference: str
    """The bank's own reference of the refund."""
    reference: str
    """Of the credit."""
    amount: Decimal | None
    """Rupees; None when the bank does not say."""
    status: RefundStatus
    status_text: str
    """The bank's own word."""
    message: str
    utr: str
    """Of the payment back, once there is one."""
    updated_at: datetime | None
    idempotency_key: str = ""
    """Under which it was asked for, where that is known."""

    @property
    def is_final(self) -> bool:
        """Nothing can happen to it any more."""
        return self.status.is_final
