"""The bank's service without its sockets: gateway, repeated requests, and control of payments."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from neo_async.errors import UsageError
from neo_async.exchange.bank.books import Books
from neo_async.exchange.bank.calls import BankCalls, refund_row
from neo_async.exchange.bank.credits import Run
from neo_async.exchange.bank.forms import CreditForm, Head, MoveForm, read_amount, read_form
from neo_async.exchange.bank.gateway import Gateway, Throttled
from neo_async.exchange.bank.settings import BankSettings
from neo_async.exchange.bank.types import (
    Client,
    Payment,
    Refund,
    RefundStatus,
    Refused,
    make_clients,
)
from neo_async.exchange.faults.plan import FaultPlan
from neo_async.exchange.faults.settings import Calls
from neo_async.exchange.rest.replies import Reply, json
from neo_async.exchange.rest.services import AdminRoutes, Call, ErrorResponses

TOKEN_PATH: Final = "/auth/oauth/v2/token"  # noqa: S105 - a path

_REMEMBERED: Final = 86_400.0
"""Seconds for which a repeated request gets the first answer again."""


class _First(NamedTuple):
    """An answer, for when the same request comes again."""

    until: float
    digest: bytes
    reply: Reply


class Bank:
    """Kotak Open Banking's server, mounted in the exchange. Its books end with the process."""

    def __init__(
        self,
        settings: BankSettings,
        seed: int,
        clock: Callable[[], float],
        plan: FaultPlan,
        path: str,
        key: str = "",
    ) -> None:
        """`clock` gives Unix seconds; `path` is where it is mounted; `key` is the exchange's."""
        self.clients = make_clients(seed, key)
        self._seed = seed
        self._clock = clock
        self._plan = plan
        self._path = path
        self._gateway = Gateway(self.clients, settings)
        self.error_responses = ErrorResponses(_throttled(1), _failed)
        self.admin_routes: AdminRoutes = {
            "bank/credit": {"POST": self._admin_credit},
            "bank/refund": {"POST": self._admin_refund},
        }
        self.reset()

    def __repr__(self) -> str:
        return f"<Bank at {self._path}, {len(self.clients)} clients>"

    def reset(self) -> None:
        """Begin new books, without account, credit or refund. Clients and tokens stay."""
        self._books = Books(self.clients, self._seed)
        self._services = BankCalls(self._books, self._plan)
        self._firsts: dict[tuple[str, str], _First] = {}

    # --- for tests ------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The first one."""
        return self.clients[0]

    def credit(
        self,
        virtual_account: str,
        amount: str,
        *,
        mode: str = "NEFT",
        utr: str | None = None,
        remitter_name: str | None = None,
        remitter_account: str | None = None,
        remitter_ifsc: str | None = None,
        narration: str = "",
        count: int = 1,
    ) -> str:
        """Pay in, `count` times; `amount` is rupees as text, such as "1500.00". What is
        None is made up. Answers the transaction reference, of the first one.

        Raises UsageError for what the virtual account does not take.
        """
        form = {
            "virtualAccountNumber": virtual_account,
            "amount": amount,
            "mode": mode,
            "utr": utr,
            "remitterName": remitter_name,
            "remitterAccount": remitter_account,
            "remitterIfsc": remitter_ifsc,
            "narration": narration,
            "count": count,
        }
        try:
            run = self._credit(msgspec.convert(form, CreditForm))
        except (Refused, msgspec.ValidationError) as error:
            raise UsageError(str(error)) from None
        return run.credit(0).reference

    def move_refund(self, reference: str, status: RefundStatus | str) -> None:
        """Let the payment service go on with a refund, or end it.

        Raises UsageError when it is unknown or final.
        """
        try:
            self._move_refund(reference, status)
        except Refused as refused:
            raise UsageError(str(refused)) from None

    def end_tokens(self) -> None:
        """End all tokens, as if they had expired."""
        self._gateway.end_tokens()

    # --- calls ----------------------------------------------------------------------------------

    def takes(self, path: str) -> bool:
        return path.startswith(f"{self._path}/")

    def kind(self, method: str, path: str) -> Calls:
        return "bank"

    def answer(self, call: Call) -> Reply:
        path = call.path.removeprefix(self._path)
        if path == TOKEN_PATH:
            return self._gateway.grant(call)
        request_id = ""
        try:
            service = self._services.find(call.method, path)
            if self._plan.strikes("bank_expire"):
                self._gateway.end_token(call)
            client = self._gateway.admit(call)
            request_id = read_form(call.body, Head).request_id
            if not service.once:
                return json(service.answer(client, call.body, call.time))
            key = (client.name, call.headers.get("Idempotency-Key", request_id))
            return self._once(key, call, lambda: service.answer(client, call.body, call.time))
        except Throttled as throttled:
            return _throttled(throttled.retry_after)
        except Refused as refused:
            return _refused(refused, request_id)

    def _once(
        self, key: tuple[str, str], call: Call, answer: Callable[[], dict[str, object]]
    ) -> Reply:
        """Answer a request; repeat the answer where the same request had one."""
        self._forget(call.time)
        digest = hashlib.sha256(call.path.encode() + call.body).digest()
        first = self._firsts.get(key)
        if first is None:
            try:
                reply = json(answer())
            except Refused as refused:
                reply = _refused(refused, key[1])
            self._firsts[key] = _First(call.time + _REMEMBERED, digest, reply)
            return reply
        if first.digest != digest:
            text = f"idempotency key {key[1]} was used with another request"
            raise Refused("VA0409", text, status=409)
        return first.reply._replace(headers={"Idempotent-Replay": "true"})

    def _forget(self, now: float) -> None:
        """Forget the answers that have expired, oldest first."""
        while self._firsts:
            key = next(iter(self._firsts))
            if self._firsts[key].until > now:
                return
            del self._firsts[key]

    # --- control of payments ----------------------------------------------------------------------

    def _admin_credit(self, call: Call) -> Reply:
        try:
            run = self._credit(read_form(call.body, CreditForm))
        except Refused as refused:
            return json({"error": str(refused)}, status=400)
        return json(
            {
                "transactionReference": run.credit(0).reference,
                "firstSequence": run.first_sequence,
                "lastSequence": run.last_sequence,
            }
        )

    def _admin_refund(self, call: Call) -> Reply:
        try:
            form = read_form(call.body, MoveForm)
            refund = self._move_refund(form.refund_reference, form.refund_status)
        except Refused as refused:
            return json({"error": str(refused)}, status=400)
        return json(refund_row(refund))

    def _credit(self, form: CreditForm) -> Run:
        payment = Payment(
            amount=read_amount(form.amount),
            mode=form.mode,
            utr=form.utr,
            remitter_name=form.remitter_name,
            remitter_account=form.remitter_account,
            remitter_ifsc=form.remitter_ifsc,
            narration=form.narration,
        )
        return self._books.credit(form.virtual_account_number, payment, form.count, self._clock())

    def _move_refund(self, reference: str, status: str) -> Refund:
        try:
            wanted = RefundStatus(status)
        except ValueError:
            text = f"refundStatus {status!r}: must be among {', '.join(RefundStatus)}"
            raise Refused("VA1001", text) from None
        return self._books.move_refund(reference, wanted, self._clock())


def _refused(refused: Refused, request_id: str) -> Reply:
    content = {
        "status": "FAILURE",
        "requestId": request_id,
        "errorCode": refused.code,
        "message": refused.text,
    }
    if refused.field:
        content["field"] = refused.field
    return json(content, status=refused.status)


def _throttled(retry_after: int) -> Reply:
    reply = _refused(Refused("VA0429", "the plan's limit is reached", status=429), "")
    return reply._replace(headers={"Retry-After": str(retry_after)})


def _failed(status: int) -> Reply:
    code = "VA0503" if status == HTTPStatus.SERVICE_UNAVAILABLE else "VA0500"
    return _refused(Refused(code, HTTPStatus(status).phrase, status=status), "")
