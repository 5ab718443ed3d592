"""Refunds: money is paid out at most once per key, even when answers are lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from neo_async.banking.answers import RefundReader
from neo_async.banking.calls import RETRY_BASE, RETRY_CAP, TRIES, UNCLEAR, BankCalls
from neo_async.banking.mapping import Json, Outgoing
from neo_async.banking.model import Refund, Refusal
from neo_async.banking.names import Call
from neo_async.base import logs
from neo_async.errors import (
    BankRejected,
    BrokerError,
    LoginFailed,
    NeoError,
    NotSent,
    ProtocolError,
    RefundUnknown,
    SessionEnded,
    TransportError,
)
from neo_async.transport.backoff import backoff
from neo_async.transport.retry import retry

log = logging.getLogger(logs.BANKING)


class Refunds:
    """Sends refunds, and resolves those whose answers were lost."""

    def __init__(self, calls: BankCalls) -> None:
        self._calls = calls
        self._first = RefundReader(calls.profile, Call.REFUND, calls.formats)
        self._later = RefundReader(calls.profile, Call.REFUND_STATUS, calls.formats)

    async def create(self, values: Mapping[str, object], key: str, *, is_repeat: bool) -> Refund:
        """Send a refund. With `is_repeat` the key may have been used before, so that the refund is
        looked up first.

        Raises RefundUnknown when it cannot be established whether the bank has initiated it.
        """
        request = self._calls.request(Call.REFUND, values, key=key)
        if is_repeat and (known := await self._known_before(values, key)) is not None:
            return known
        try:
            return await self._send(request)
        except UNCLEAR as error:
            log.warning("refund %s: %s", key, error)
            return await self._resolve(request, values, error)

    async def status(self, values: Mapping[str, object], key: str) -> Refund:
        """Return the state of a refund in the bank's books."""
        request = self._calls.request(Call.REFUND_STATUS, values)
        return self._read(self._later, await self._calls.send_until_answered(request), key)

    async def _send(self, request: Outgoing) -> Refund:
        return self._read(self._first, await self._calls.send(request), request.key)

    def _read(self, reader: RefundReader, content: Json, key: str) -> Refund:
        refund = self._calls.read_content(lambda content: reader.read(content, key), content)
        words = self._calls.secrets.scrub(refund.message)
        return msgspec.structs.replace(refund, message=words)

    async def _resolve(
        self, request: Outgoing, values: Mapping[str, object], unclear: NeoError
    ) -> Refund:
        """Look the refund up. Where the bank has no record of it, and recognises requests by their
        keys, send the same request again under the same key."""

        async def look_up_or_resend() -> Refund:
            try:
                known = await self._known(values, request.key)
            except BankRejected as refusal:
                # The bank refused the inquiry, not the refund.
                raise self._unknown(request, refusal) from unclear
            if known is not None:
                return known
            if not self._calls.repeatable(Call.REFUND):
                raise unclear  # it may still be on its way
            log.info("no record of refund %s: sending it again under its key", request.key)
            return await self._send(request)

        # The refund itself has just failed, so that the first inquiry waits, too.
        await asyncio.sleep(backoff(1, base=RETRY_BASE, cap=RETRY_CAP))
        try:
            return await retry(
                look_up_or_resend, _may_pass, base=RETRY_BASE, cap=RETRY_CAP, attempts=TRIES
            )
        except BankRejected:
            raise
        except (TransportError, BrokerError, ProtocolError) as error:
            raise self._unknown(request, error) from unclear

    def _unknown(self, request: Outgoing, reason: NeoError) -> RefundUnknown:
        return RefundUnknown(idempotency_key=request.key, reason=str(reason))

    async def _known_before(self, values: Mapping[str, object], key: str) -> Refund | None:
        """Look a refund up before it is sent. Raises NotSent when the inquiry fails."""
        try:
            return await self._known(values, key)
        except UNCLEAR as error:
            raise NotSent(
                f"refund {key} was not sent, because it could not be looked up first: {error}"
            ) from error

    async def _known(self, values: Mapping[str, object], key: str) -> Refund | None:
        """Return the refund requested under this key; None when the bank has none, or offers no
        inquiry by key."""
        if not self._by_key():
            return None
        wanted = {
            name: values[name] for name in ("client_name", "physical_account") if name in values
        }
        try:
            return await self.status({**wanted, "original_request_id": key}, key)
        except BankRejected as refusal:
            if refusal.refusal != Refusal.UNKNOWN_TRANSACTION:
                raise
            return None

    def _by_key(self) -> bool:
        """Return whether the bank offers an inquiry by the key of the original request."""
        return self._calls.offers(Call.REFUND_STATUS) and self._calls.has_field(
            Call.REFUND_STATUS, "original_request_id"
        )


def _may_pass(error: NeoError) -> bool:
    """Return whether the same call may succeed a moment later."""
    if isinstance(error, (BankRejected, LoginFailed, SessionEnded)):
        return False
    return isinstance(error, (TransportError, BrokerError, ProtocolError))
