"""The bank's books: virtual accounts, credits, their delivery, and refunds.

No sockets, no clock, no JSON: a command and the time go in, a result comes out or `Refused` is
raised. Nothing is half done when it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Final

import msgspec

from neo_async.base.india import date_of
from neo_async.exchange.bank.credits import Credits, Run
from neo_async.exchange.bank.types import (
    FINAL,
    RETURNED,
    AccountStatus,
    Batch,
    Client,
    Credit,
    Payment,
    Refund,
    RefundStatus,
    Refused,
    VirtualAccount,
)

BATCH: Final = 100
"""Credits in a batch; only the newest one may hold fewer."""


class _Delivery:
    """Delivery of a physical account's credits."""

    def __init__(self) -> None:
        self.acknowledged = 0
        """Sequence of the last credit whose receipt is known."""
        self.outstanding: Batch | None = None
        self.previous: Batch | None = None
        """The one that was acknowledged last."""
        self.counts: dict[str, int] = {}
        """Batch ever delivered to its count."""


class Books:
    def __init__(self, clients: Iterable[Client], seed: int) -> None:
        self._deliveries = {
            physical: _Delivery() for client in clients for physical in client.physical_accounts
        }
        self._accounts: dict[str, VirtualAccount] = {}
        self._credits = Credits(seed)
        self._batches = 0
        self._refunds: dict[str, Refund] = {}
        self._by_request: dict[tuple[str, str], Refund] = {}
        """Client name and request id to refund."""
        self._by_transaction: dict[str, list[Refund]] = {}

    # --- virtual accounts -----------------------------------------------------------------------

    def create(self, account: VirtualAccount) -> None:
        if account.number in self._accounts:
            raise Refused("VA1002", "virtual account number already exists")
        _check_terms(account)
        self._accounts[account.number] = account

    def modify(
        self, client: Client, physical: str, number: str, changes: dict[str, object]
    ) -> None:
        """Change fields of an account; `changes` holds them by their names in VirtualAccount."""
        account = self._live(client, physical, number)
        changed = msgspec.structs.replace(account, **changes)
        _check_terms(changed)
        self._accounts[number] = changed

    def delete(self, client: Client, physical: str, number: str) -> None:
        """Delete an account. Its number stays taken, and is not credited any more."""
        self._live(client, physical, number).status = AccountStatus.DELETED

    def account(self, client: Client, physical: str, number: str) -> VirtualAccount:
        """Return a virtual account, a deleted one too."""
        account = self._accounts.get(number)
        if account is None:
            raise Refused("VA1003", "virtual account number unknown")
        if account.client != client.name or account.physical_account != physical:
            raise Refused("VA0403", "the virtual account belongs to another account")
        return account

    def _live(self, client: Client, physical: str, number: str) -> VirtualAccount:
        account = self.account(client, physical, number)
        if account.status is AccountStatus.DELETED:
            raise Refused("VA1004", "virtual account number is deleted")
        return account

    # --- credits and their delivery -------------------------------------------------------------

    def credit(self, number: str, payment: Payment, count: int, now: float) -> Run:
        """Credit a virtual account `count` times with the same payment."""
        account = self._accounts.get(number)
        if account is None:
            raise Refused("VA1003", f"virtual account {number!r} is unknown")
        if account.status is not AccountStatus.ACTIVE:
            raise Refused("VA1004", f"virtual account {number} is {account.status.lower()}")
        _check_day(account, date_of(now))
        low, high = account.min_amount, account.max_amount
        if (low is not None and payment.amount < low) or (
            high is not None and payment.amount > high
        ):
            raise Refused("VA1001", f"virtual account {number} takes {_range(low, high)}")
        return self._credits.add(payment, number, account.physical_account, count, now)

    def fetch(self, physical: str) -> Batch:
        """Return the batch that is not acknowledged yet; the next one if all are."""
        delivery = self._deliveries[physical]
        if delivery.outstanding is None:
            first = delivery.acknowledged + 1
            last = min(first + BATCH - 1, self._credits.last_sequence(physical))
            if last < first:
                return Batch(first=first, last=last)
            self._batches += 1
            batch = Batch(id=f"B{self._batches:010d}", first=first, last=last)
            delivery.outstanding = batch
            delivery.counts[batch.id] = batch.count
        delivery.outstanding.deliveries += 1
        return delivery.outstanding

    def fetch_again(self, physical: str) -> Batch | None:
        """Return, against the rules, the batch that was acknowledged last; None if there was
        none."""
        previous = self._deliveries[physical].previous
        if previous is not None:
            previous.deliveries += 1
        return previous

    def credits(self, physical: str, first: int, last: int) -> Iterator[Credit]:
        return self._credits.between(physical, first, last)

    def has_more(self, physical: str, last: int) -> bool:
        """Return whether there are credits behind a sequence."""
        return self._credits.last_sequence(physical) > last

    def acknowledge(self, physical: str, batch_id: str, count: int) -> bool:
        """Acknowledge a batch; return whether it was acknowledged before."""
        delivery = self._deliveries[physical]
        delivered = delivery.counts.get(batch_id)
        if delivered is None:
            raise Refused("VA2002", f"batch {batch_id!r} is unknown", status=404)
        if count != delivered:
            raise Refused("VA2003", f"count {count}: the batch holds {delivered}", field="count")
        batch = delivery.outstanding
        if batch is None or batch.id != batch_id:
            return True
        delivery.acknowledged, delivery.outstanding, delivery.previous = batch.last, None, batch
        return False

    # --- refunds --------------------------------------------------------------------------------

    def refund(
        self, client: Client, request_id: str, reference: str, amount: int | None, now: float
    ) -> Refund:
        """Refund a credit; an `amount` of None refunds what is left of it."""
        credit = self._credits.find(reference)
        if credit is None:
            raise Refused("VA3001", f"transaction {reference!r} is unknown", status=404)
        if credit.physical_account not in client.physical_accounts:
            raise Refused("VA0403", "the transaction is another client's", status=403)
        earlier = self._by_transaction.get(reference, [])
        left = credit.amount - sum(each.amount for each in earlier if each.status not in RETURNED)
        if not left:
            raise Refused("VA3003", "the transaction is fully refunded", status=409)
        if amount is not None and amount > left:
            raise Refused("VA3002", f"only {rupees(left)} is left to refund", field="amount")
        refund = Refund(
            reference=f"RF{len(self._refunds) + 1:010d}",
            request_id=request_id,
            client=client.name,
            transaction=reference,
            amount=amount or left,
            status=RefundStatus.INITIATED,
            message="refund initiated",
            updated_at=now,
        )
        if not credit.remitter_account:
            refund.status = RefundStatus.REJECTED
            refund.message = "the payment names no account to refund to"
        self._refunds[refund.reference] = refund
        self._by_request[client.name, request_id] = refund
        self._by_transaction.setdefault(reference, []).append(refund)
        return refund

    def refund_by_reference(self, client: Client, reference: str) -> Refund:
        refund = self._refunds.get(reference)
        if refund is None or refund.client != client.name:
            raise Refused("VA3001", f"refund {reference!r} is unknown", status=404)
        return refund

    def refund_by_request(self, client: Client, request_id: str) -> Refund:
        refund = self._by_request.get((client.name, request_id))
        if refund is None:
            raise Refused("VA3001", f"no refund was requested by request {request_id}", status=404)
        return refund

    def move_refund(self, reference: str, status: RefundStatus, now: float) -> Refund:
        """Set the state of a refund, as the payment service reports it."""
        refund = self._refunds.get(reference)
        if refund is None:
            raise Refused("VA3001", f"refund {reference!r} is unknown", status=404)
        if refund.status in FINAL:
            raise Refused("VA0400", f"refund {reference} is {refund.status}, which is final")
        if status is RefundStatus.INITIATED:
            raise Refused("VA0400", f"refund {reference} cannot go back to {status}")
        refund.status, refund.updated_at = status, now
        refund.message = f"refund {status.lower()}"
        if status is RefundStatus.SUCCESS:
            refund.utr = f"KKBKR{refund.reference[2:]}"
        return refund


def rupees(paise: int) -> str:
    return f"{paise // 100}.{paise % 100:02d}"


def _check_terms(account: VirtualAccount) -> None:
    if account.valid_from and account.valid_to and account.valid_from > account.valid_to:
        text = f"validTo {account.valid_to} is before validFrom {account.valid_from}"
        raise Refused("VA1001", text, field="validTo")
    low, high = account.min_amount, account.max_amount
    if low is not None and high is not None and low > high:
        text = f"maxAmount {rupees(high)} is below minAmount {rupees(low)}"
        raise Refused("VA1001", text, field="maxAmount")


def _check_day(account: VirtualAccount, today: date) -> None:
    if account.valid_from and today < account.valid_from:
        raise Refused("VA1001", f"{account.number} is valid from {account.valid_from} on")
    if account.valid_to and today > account.valid_to:
        raise Refused("VA1001", f"{account.number} was valid until {account.valid_to}")


def _range(low: int | None, high: int | None) -> str:
    bounds = (("at least", low), ("at most", high))
    return " and ".join(f"{word} {rupees(paise)}" for word, paise in bounds if paise is not None)
