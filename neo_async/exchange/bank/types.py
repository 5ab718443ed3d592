"""Nouns of the bank. Money in paise, times in Unix seconds."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from random import Random
from typing import Final

import msgspec


class Refused(Exception):
    """The bank refuses a request; `field` names the field at fault, if it is one."""

    def __init__(self, code: str, text: str, *, status: int = 400, field: str = "") -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.status = status
        self.field = field


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A customer of the bank, and what its application shows at the gateway."""

    name: str
    client_id: str
    """Client id, which is also its API key."""
    client_secret: str
    physical_accounts: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Client({self.name!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("name", self.name)]


def make_clients(seed: int, key: str = "") -> tuple[Client, ...]:
    """Return two clients, so that they can be kept apart; the first has two physical accounts. The
    same seed and key give the same ones."""
    random = Random(f"{seed}{key}|bank clients")
    return tuple(
        Client(
            name=name,
            client_id=f"l7xx{random.getrandbits(128):032x}",
            client_secret=f"{random.getrandbits(128):032x}",
            physical_accounts=tuple(
                str(random.randrange(10**9, 10**10)) for _ in range(account_count)
            ),
        )
        for name, account_count in (("ACME", 2), ("GLOBEX", 1))
    )


class AccountStatus(StrEnum):
    ACTIVE = "ACTIVE"
    BLOCKED = "BLOCKED"
    DELETED = "DELETED"


class VirtualAccount(msgspec.Struct, kw_only=True):
    number: str
    client: str
    physical_account: str
    name: str
    valid_from: date | None = None
    valid_to: date | None = None
    min_amount: int | None = None
    max_amount: int | None = None
    mobile: str | None = None
    email: str | None = None
    description: str | None = None
    status: AccountStatus = AccountStatus.ACTIVE


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment into a virtual account. The bank makes up what is None."""

    amount: int
    mode: str = "NEFT"
    utr: str | None = None
    remitter_name: str | None = None
    remitter_account: str | None = None
    remitter_ifsc: str | None = None
    narration: str = ""


class Credit(msgspec.Struct, frozen=True, gc=False):
    """A payment as the client sees it."""

    sequence: int
    reference: str
    virtual_account: str
    physical_account: str
    amount: int
    mode: str
    utr: str
    remitter_name: str
    remitter_account: str
    remitter_ifsc: str
    narration: str
    credited_at: float


class Batch(msgspec.Struct, kw_only=True):
    """Credits on their way to the client. An empty one has no id."""

    id: str = ""
    first: int
    """Sequence."""
    last: int
    deliveries: int = 0

    @property
    def count(self) -> int:
        return self.last - self.first + 1


class RefundStatus(StrEnum):
    INITIATED = "INITIATED"
    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    REJECTED = "REJECTED"


FINAL: Final = frozenset({RefundStatus.SUCCESS, RefundStatus.FAILED, RefundStatus.REJECTED})
RETURNED: Final = frozenset({RefundStatus.FAILED, RefundStatus.REJECTED})
"""States of a refund after which its amount can be refunded again."""


class Refund(msgspec.Struct, kw_only=True):
    reference: str
    request_id: str
    client: str
    transaction: str
    amount: int
    status: RefundStatus
    message: str
    updated_at: float
    utr: str = ""
