"""Refunds: money goes out at most once for a key, whatever becomes of the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from neo_async import logs
from neo_async.banking.answers import RefundReader
from neo_async.banking.calls import TRIES, UNCLEAR, BankCalls
from neo_async.banking.mapping import Json, Outgoing
from neo_async.banking.model import Refund, Refusal
from neo_async.banking.names import Call
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

log = logging.getLogger(logs.BANKING)


class Refunds:
    """Sends refunds, and finds out what became of those without an answer."""

    def __init__(self, calls: BankCalls) -> None:
        self._calls = calls
        self._first = RefundReader(calls.profile, Call.REFUND, calls.formats)
        self._later = RefundReader(calls.profile, Call.REFUND_STATUS, calls.formats)

    async def create(self, values: Mapping[str, object], key: str, *, is_repeat: bool) -> Refund:
        """`is_repeat`: the key was used before, maybe, so that the bank is asked first.

        Raises RefundUnknown when it cannot be established whether the bank has it.
        """
        request = self._calls.request(Call.REFUND, values, key=key)
        if is_repeat and (known := await self._known_before(values, key)) is not None:
            return known
        try:
            return await self._send(request)
        except UNCLEAR as error:
            log.warning("refund %s: %s", key, error)
            return await self._settle(request, values, error)

    async def status(self, values: Mapping[str, object], key: str) -> Refund:
        """One look at the bank's books."""
        request = self._calls.request(Call.REFUND_STATUS, values)
        return self._understood(self._later, await self._calls.repeated(request), key)

    async def _send(self, request: Outgoing) -> Refund:
        return self._understood(self._first, await self._calls.once(request), request.key)

    def _understood(self, reader: RefundReader, content: Json, key: str) -> Refund:
        refund = self._calls.understood(lambda content: reader.read(content, key), content)
        words = self._calls.secrets.scrub(refund.message)
        return msgspec.structs.replace(refund, message=words)

    async def _settle(
        self, request: Outgoing, values: Mapping[str, object], unclear: NeoError
    ) -> Refund:
        """Look for it; where the bank has no trace of it, and knows requests by their keys, send
        the same request under the same key."""
        reason: NeoError = unclear
        for attempt in range(1, TRIES + 1):
            await asyncio.sleep(backoff(attempt, base=0.5, cap=5.0))
            try:
                known = await self._known(values, request.key)
            except (BankRejected, LoginFailed, SessionEnded) as refusal:
                reason = refusal  # of the question, not of the refund; it is not asked again
                break
            except (TransportError, BrokerError, ProtocolError) as error:
                reason = error
                continue
            if known is not None:
                return known
            if not self._calls.repeatable(Call.REFUND):
                continue  # it may still be on its way
            log.info("refund %s is not there: sending it again under its key", request.key)
            try:
                return await self._send(request)
            except BankRejected:
                raise
            except (LoginFailed, SessionEnded) as refusal:
                reason = refusal
                break
            except (TransportError, BrokerError, ProtocolError) as error:
                reason = error
        raise RefundUnknown(idempotency_key=request.key, reason=str(reason)) from unclear

    async def _known_before(self, values: Mapping[str, object], key: str) -> Refund | None:
        """What failed then was the question, and nothing else was sent."""
        try:
            return await self._known(values, key)
        except UNCLEAR as error:
            raise NotSent(
                f"refund {key} was not sent, for the bank could not be asked for it first: {error}"
            ) from error

    async def _known(self, values: Mapping[str, object], key: str) -> Refund | None:
        """The refund that was asked for under this key; None when the bank has none, or does not
        tell."""
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
        return self._calls.offers(Call.REFUND_STATUS) and self._calls.knows(
            Call.REFUND_STATUS, "original_request_id"
        )
