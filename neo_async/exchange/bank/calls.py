"""The calls of the bank's services: JSON in, books, JSON out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from neo_async.base.india import IST
from neo_async.exchange.bank.books import BATCH, Books, rupees
from neo_async.exchange.bank.forms import (
    AccountsForm,
    AckForm,
    ChangeItem,
    FetchForm,
    InquiryForm,
    NewItem,
    NumberItem,
    RefundForm,
    RefundStatusForm,
    number_of,
    read_amount,
    read_form,
    read_item,
    read_items,
)
from neo_async.exchange.bank.types import Client, Credit, Refund, Refused, VirtualAccount
from neo_async.exchange.faults.plan import FaultPlan

Content = dict[str, object]

_CURSOR: Final = b"seq:"


class BankCall(NamedTuple):
    answer: Callable[[Client, bytes, float], Content]
    """Answers a client's call by its body, at a time in Unix seconds."""
    once: bool = False
    """A repeated request gets the first answer, and has no effect."""


class BankCalls:
    def __init__(self, books: Books, plan: FaultPlan) -> None:
        self._books = books
        self._plan = plan
        self._services = {
            "/va/v1/accounts/create": BankCall(self._create, once=True),
            "/va/v1/accounts/modify": BankCall(self._modify, once=True),
            "/va/v1/accounts/delete": BankCall(self._delete, once=True),
            "/va/v1/accounts/inquiry": BankCall(self._inquire),
            "/va/v1/transactions/fetch": BankCall(self._fetch),
            "/va/v1/transactions/ack": BankCall(self._acknowledge, once=True),
            "/va/v1/refunds/create": BankCall(self._refund, once=True),
            "/va/v1/refunds/status": BankCall(self._refund_status),
        }

    def find(self, method: str, path: str) -> BankCall:
        service = self._services.get(path)
        if service is None:
            raise Refused("VA0404", f"no service at {path}", status=404)
        if method != "POST":
            raise Refused("VA0404", f"{path} takes POST, not {method}", status=405)
        return service

    # --- virtual accounts -----------------------------------------------------------------------

    def _create(self, client: Client, body: bytes, _: float) -> Content:
        form = _accounts_form(client, body)

        def create(item: msgspec.Raw, index: int) -> Content:
            new = read_item(item, index, NewItem)
            self._books.create(new.account(client, form.physical_account))
            return {"message": "created"}

        return _each(form, create)

    def _modify(self, client: Client, body: bytes, _: float) -> Content:
        form = _accounts_form(client, body)

        def modify(item: msgspec.Raw, index: int) -> Content:
            change = read_item(item, index, ChangeItem)
            number = change.virtual_account_number
            self._books.modify(client, form.physical_account, number, change.changes())
            return {"message": "modified"}

        return _each(form, modify)

    def _delete(self, client: Client, body: bytes, _: float) -> Content:
        form = _accounts_form(client, body)

        def delete(item: msgspec.Raw, index: int) -> Content:
            number = read_item(item, index, NumberItem).virtual_account_number
            self._books.delete(client, form.physical_account, number)
            return {"message": "deleted"}

        return _each(form, delete)

    def _inquire(self, client: Client, body: bytes, _: float) -> Content:
        form = read_form(body, InquiryForm)
        _check_physical(client, form.physical_account)

        def inquire(item: msgspec.Raw, index: int) -> Content:
            number = read_item(item, index, NumberItem).virtual_account_number
            account = self._books.account(client, form.physical_account, number)
            return {"message": "found", **_account_row(account)}

        return _each(form, inquire)

    # --- transactions ---------------------------------------------------------------------------

    def _fetch(self, client: Client, body: bytes, _: float) -> Content:
        form = read_form(body, FetchForm)
        _check_name(client, form.client_name)
        physical = form.physical_account
        _check_physical(client, physical)
        if form.cursor is not None:
            return self._replay(form, form.cursor)
        batch = self._books.fetch_again(physical) if self._plan.strikes("bank_repeat") else None
        batch = batch or self._books.fetch(physical)
        return self._delivery(form, batch.id, batch.deliveries, batch.first, batch.last)

    def _replay(self, form: FetchForm, cursor: str) -> Content:
        """Return the credits after a cursor, delivered or not; changes nothing."""
        first = _read_cursor(cursor) + 1
        content = self._delivery(form, "", 0, first, first + BATCH - 1)
        return content | {"replay": True}

    def _delivery(
        self, form: FetchForm, batch_id: str, deliveries: int, first: int, last: int
    ) -> Content:
        rows = [
            _credit_row(each) for each in self._books.credits(form.physical_account, first, last)
        ]
        last = first + len(rows) - 1
        return {
            "status": "SUCCESS",
            "requestId": form.request_id,
            "batchId": batch_id or None,
            "deliveryCount": deliveries,
            "cursor": base64.b64encode(_CURSOR + str(last).encode()).decode(),
            "count": len(rows),
            "hasMore": self._books.has_more(form.physical_account, last),
            "transactions": rows,
        }

    def _acknowledge(self, client: Client, body: bytes, _: float) -> Content:
        form = read_form(body, AckForm)
        _check_physical(client, form.physical_account)
        already = self._books.acknowledge(form.physical_account, form.batch_id, form.count)
        return {
            "status": "SUCCESS",
            "requestId": form.request_id,
            "batchId": form.batch_id,
            "acknowledged": True,
            "alreadyAcknowledged": already,
        }

    # --- refunds --------------------------------------------------------------------------------

    def _refund(self, client: Client, body: bytes, now: float) -> Content:
        form = read_form(body, RefundForm)
        _check_name(client, form.client_name)
        amount = None if form.amount is None else read_amount(form.amount)
        refund = self._books.refund(
            client, form.request_id, form.transaction_reference, amount, now
        )
        return {"status": "SUCCESS", "requestId": form.request_id, **refund_row(refund)}

    def _refund_status(self, client: Client, body: bytes, _: float) -> Content:
        form = read_form(body, RefundStatusForm)
        if form.refund_reference is not None and form.original_request_id is None:
            refund = self._books.refund_by_reference(client, form.refund_reference)
        elif form.original_request_id is not None and form.refund_reference is None:
            refund = self._books.refund_by_request(client, form.original_request_id)
        else:
            text = "send either refundReference or originalRequestId"
            raise Refused("VA1001", text, field="refundReference")
        return {"status": "SUCCESS", "requestId": form.request_id, **refund_row(refund)}


def _accounts_form(client: Client, body: bytes) -> AccountsForm:
    form = read_form(body, AccountsForm)
    _check_name(client, form.client_name)
    _check_physical(client, form.physical_account)
    return form


def _check_name(client: Client, name: str) -> None:
    if name != client.name:
        text = f"clientName {name!r} is not yours"
        raise Refused("VA0403", text, status=403, field="clientName")


def _check_physical(client: Client, physical: str) -> None:
    if physical not in client.physical_accounts:
        text = f"physicalAccount {physical} is not yours"
        raise Refused("VA0403", text, status=403, field="physicalAccount")


def _each(form: AccountsForm | InquiryForm, act: Callable[[msgspec.Raw, int], Content]) -> Content:
    """Apply a function to each item, and return the results in their order."""
    seen: set[str] = set()
    results = []
    failures = 0
    for index, item in enumerate(read_items(form.accounts)):
        number = number_of(item)
        result: Content = {"index": index, "virtualAccountNumber": number}
        try:
            if number in seen:
                raise Refused("VA1006", "the same number twice in one request")
            seen.add(number)
            result |= {"status": "SUCCESS", "code": "00"} | act(item, index)
        except Refused as refused:
            failures += 1
            result |= {"status": "FAILURE", "code": refused.code, "message": refused.text}
            if refused.field:
                result["field"] = refused.field
        results.append(result)
    status = "FAILURE" if failures == len(results) else "PARTIAL" if failures else "SUCCESS"
    return {"status": status, "requestId": form.request_id, "results": results}


def _account_row(account: VirtualAccount) -> Content:
    low, high = account.min_amount, account.max_amount
    return {
        "name": account.name,
        "validFrom": account.valid_from,
        "validTo": account.valid_to,
        "minAmount": None if low is None else rupees(low),
        "maxAmount": None if high is None else rupees(high),
        "mobile": account.mobile,
        "email": account.email,
        "description": account.description,
        "accountStatus": account.status,
    }


def _credit_row(credit: Credit) -> Content:
    return {
        "sequence": credit.sequence,
        "transactionReference": credit.reference,
        "virtualAccountNumber": credit.virtual_account,
        "physicalAccount": credit.physical_account,
        "amount": rupees(credit.amount),
        "currency": "INR",
        "mode": credit.mode,
        "utr": credit.utr,
        "remitterName": credit.remitter_name,
        "remitterAccount": credit.remitter_account,
        "remitterIfsc": credit.remitter_ifsc,
        "narration": credit.narration,
        "creditedAt": _india(credit.credited_at),
    }


def refund_row(refund: Refund) -> Content:
    return {
        "refundReference": refund.reference,
        "transactionReference": refund.transaction,
        "amount": rupees(refund.amount),
        "refundStatus": refund.status,
        "message": refund.message,
        "utr": refund.utr,
        "updatedAt": _india(refund.updated_at),
    }


def _read_cursor(cursor: str) -> int:
    """Return the sequence number behind which a cursor stands."""
    try:
        mark, _, digits = base64.b64decode(cursor, validate=True).partition(b":")
        if mark + b":" == _CURSOR and digits.isdigit():
            return int(digits)
    except (binascii.Error, ValueError):
        pass
    raise Refused("VA2004", f"cursor {cursor!r} is none of ours", field="cursor")


def _india(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), IST).isoformat()
