"""Virtual accounts, credits and refunds. Amounts are exact rupees, as `Decimal`."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

Money: TypeAlias = Decimal | str | int
"""An amount of rupees to send. A float is refused: `0.1` is not exactly 0.1."""


class Refusal(StrEnum):
    """The reason of a refusal, independent of the bank's codes."""

    INPUT = "input"
    DUPLICATE = "duplicate"
    """The account number already exists."""
    UNKNOWN_ACCOUNT = "unknown_account"
    DELETED = "deleted"
    """The account was deleted; its number stays reserved."""
    UNKNOWN_BATCH = "unknown_batch"
    UNKNOWN_TRANSACTION = "unknown_transaction"
    """No such credit or refund exists."""
    OVER_REFUND = "over_refund"
    """The amount is more than what is left of the credit."""
    KEY_REUSED = "key_reused"
    """The idempotency key belongs to another request."""
    AUTH = "auth"
    FORBIDDEN = "forbidden"
    """The call is not in your plan, or the account is not yours."""
    THROTTLE = "throttle"
    TEMPORARY = "temporary"
    OTHER = "other"


class AccountStatus(StrEnum):
    """State of a virtual account."""

    ACTIVE = "ACTIVE"
    BLOCKED = "BLOCKED"
    """Credits to the account are refused."""
    DELETED = "DELETED"


class VirtualAccount(msgspec.Struct, frozen=True):
    """An account number that collects credits for a physical account."""

    number: str
    name: str
    valid_from: date | None = None
    valid_to: date | None = None
    min_amount: Money | None = None
    """Smallest credit in rupees; a smaller one is refused."""
    max_amount: Money | None = None
    mobile: str | None = None
    email: str | None = None
    description: str | None = None


class AccountChange(msgspec.Struct, frozen=True):
    """Changes of an account: fields that are not given stay, None clears a field."""

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
    """New state: ACTIVE or BLOCKED."""


class Outcome(StrEnum):
    """The outcome of a request for one account."""

    DONE = "done"
    REFUSED = "refused"
    """The bank refused, with a reason."""
    UNKNOWN = "unknown"
    """Sent, and its outcome could not be established. Look it up before sending it again."""
    NOT_SENT = "not sent"
    """The change was not sent, because an earlier request failed. Sending it is safe."""


class AccountResult(msgspec.Struct, frozen=True):
    """The result for one account, in the order of the request."""

    number: str
    outcome: Outcome
    reason: str = ""
    """The bank's message, or the error of the request."""
    code: str = ""
    """The bank's own code."""
    refusal: Refusal | None = None

    @property
    def is_done(self) -> bool:
        return self.outcome is Outcome.DONE


class AccountState(msgspec.Struct, frozen=True):
    """An account as reported by the bank."""

    number: str
    status: AccountStatus | None
    """State of the account; None when the bank's word is not in the profile. See `status_text`."""
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
    """Names of the fields whose values are unreadable; they are None here."""


class Credit(msgspec.Struct, frozen=True, gc=False):
    """A credit that was received on a virtual account."""

    sequence: int | None
    """Number that rises with every credit of a physical account, in the bank's order."""
    reference: str
    """The bank's transaction reference, which refunds refer to. It should be unique for ever. Where
    a bank gives one to several payments (or "0" to all), each of them is a credit of its own here,
    distinguished by its other fields."""
    account: str
    """Number of the virtual account."""
    physical_account: str
    amount: Decimal
    """Amount in rupees."""
    currency: str
    mode: str
    """Mode of payment: NEFT, RTGS, IMPS, UPI, IFT, or another word of the bank."""
    utr: str
    """The payment's reference between banks. It is not unique across modes."""
    remitter_name: str
    remitter_account: str
    remitter_ifsc: str
    narration: str
    credited_at: datetime | None
    may_be_repeated: bool = False
    """Whether this credit may have been delivered before. It was being processed when the last run
    ended; or, without a store, the bank has sent its batch before; or its reference was delivered
    before with other content and without a `sequence` to distinguish the two. Check your books, by
    more than the reference, before booking it."""


class RefundStatus(StrEnum):
    """State of a refund. An unknown word of the bank becomes UNKNOWN, which is never final."""

    INITIATED = "INITIATED"
    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    """The refund failed. The money stays with you, and can be refunded again."""
    REJECTED = "REJECTED"
    """The refund was refused at once; otherwise the same as FAILED."""
    UNKNOWN = "UNKNOWN"

    @property
    def is_final(self) -> bool:
        return self in (RefundStatus.SUCCESS, RefundStatus.FAILED, RefundStatus.REJECTED)


class Refund(msgspec.Struct, frozen=True):
    """A refund as reported by the bank."""

    refund_reference: str
    """The bank's own reference of the refund."""
    reference: str
    """The bank's transaction reference of the credit."""
    amount: Decimal | None
    """Amount in rupees; None when not reported."""
    status: RefundStatus
    status_text: str
    """State in the bank's own word."""
    message: str
    utr: str
    """UTR of the payment back, once there is one."""
    updated_at: datetime | None
    idempotency_key: str = ""
    """Idempotency key of its request, where known."""

    @property
    def is_final(self) -> bool:
        """Whether the state cannot change any more."""
        return self.status.is_final
