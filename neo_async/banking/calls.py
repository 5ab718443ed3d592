"""One way of calling the bank: token, limits, and what may be sent again.

Every request carries a key of its own, as request id and idempotency key. `once` sends until the
bank has taken it in; `repeated` sends the same bytes under the same key until there is an answer,
which is safe for what changes nothing, and for what the bank recognises by its key.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from uuid import uuid4

from neo_async import logs
from neo_async.banking.answers import Refusals
from neo_async.banking.mapping import Formats, Json, Outgoing, Writer
from neo_async.banking.names import Call
from neo_async.banking.profile import BankingProfile
from neo_async.banking.token import Pass
from neo_async.errors import (
    AnswerLost,
    BankRejected,
    BrokerError,
    NeoError,
    NotSent,
    ProtocolError,
    RateLimited,
    ServerError,
    SessionEnded,
    UsageError,
)
from neo_async.transport.backoff import backoff
from neo_async.transport.hidden import Hidden
from neo_async.transport.http import HttpClient
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter
from neo_async.transport.reading import read_answer
from neo_async.transport.redaction import Secrets
from neo_async.transport.start import Start

T = TypeVar("T")

log = logging.getLogger(logs.BANKING)

UNCLEAR = (AnswerLost, ServerError, ProtocolError)
"""After these a request may have taken effect, or not."""

TRIES = 4

_KINDS = {Call.FETCH: Kind.READ, Call.INQUIRY: Kind.READ, Call.REFUND_STATUS: Kind.READ}
"""How urgent a call is; those that change something are not held up by those that read."""

_READS = frozenset(_KINDS)


def new_key() -> str:
    return str(uuid4())


class BankCalls:
    """Sends requests for those who know what they mean."""

    def __init__(
        self, profile: BankingProfile, pass_: Pass, *, http: HttpClient, limiter: Limiter
    ) -> None:
        self.profile = profile
        self.formats = Formats(profile)
        self.refusals = Refusals(profile)
        self._pass = pass_
        self._http = http
        self._limiter = limiter
        self.secrets = Secrets()
        """What was sent with the last request, to be kept out of what its answer says."""
        self._writers = {
            call: Writer(profile, call, self.formats) for call in Call if profile.path(call)
        }

    def offers(self, call: Call) -> bool:
        return call in self._writers

    def knows(self, call: Call, meaning: str) -> bool:
        """Whether the bank has a field for it."""
        return self._writer(call).knows(meaning)

    def repeatable(self, call: Call) -> bool:
        """Whether sending the same request twice is the same as sending it once."""
        return call in _READS or self.profile.idempotency.offered

    def request(
        self,
        call: Call,
        values: Mapping[str, object],
        *,
        items: Sequence[Mapping[str, object]] | None = None,
        key: str = "",
    ) -> Outgoing:
        """Raises UsageError when the bank does not offer the call."""
        return self._writer(call).request(values, key=key or new_key(), items=items)

    async def once(self, request: Outgoing) -> Json:
        """Send until the bank takes it in: again after a token that has ended, and after a 429 as
        long as that may be waited for. Neither had an effect.

        Raises NotSent, RateLimited, SessionEnded, LoginFailed or BankRejected when nothing
        happened, and one of UNCLEAR when nobody knows.
        """
        patience = self.profile.server.timeout
        renewed = False
        while True:
            token = await self._token()
            kind = _KINDS.get(request.call, Kind.PLACE)
            start = await Start(self._limiter, kind).take()
            answer = await self._http.request(
                request.method,
                request.url,
                headers=self._headers(request, token),
                body=request.body,
                params=self._pass.params,
                timeout=self.profile.server.timeout,
                kind=kind,
                start=start,
            )
            self.secrets = self._pass.secrets(token.value)
            open_ = functools.partial(self.refusals.open, request.call)
            try:
                with self.secrets.kept_out_of_errors():
                    content = await read_answer(answer, open_)
            except SessionEnded:
                if renewed or not self._pass.refused(token.value):
                    raise
                renewed = True
            except RateLimited as refusal:
                patience -= self._limiter.pause(refusal.retry_after)
                if patience < 0:
                    raise
            else:
                self._limiter.succeeded()
                return content

    def understood(self, read: Callable[[Json], T], content: Json) -> T:
        """What `read` makes of a content. Raises as `read` does, without any secret."""
        with self.secrets.kept_out_of_errors():
            return read(content)

    async def repeated(self, request: Outgoing) -> Json:
        """`once`, and the same again when that ended without an answer, a few times. Only for what
        is `repeatable`.

        Raises as `once` does: one of UNCLEAR when any of the tries was.
        """
        unclear: NeoError | None = None
        failure: NeoError | None = None
        for attempt in range(1, TRIES + 1):
            try:
                return await self.once(request)
            except BankRejected:
                raise
            except UNCLEAR as error:
                unclear = failure = error
            except NotSent as error:
                failure = error
            except (BrokerError, RateLimited) as error:
                if unclear is None:
                    raise
                raise unclear from error
            if attempt < TRIES:
                log.info("%s: %s; trying again under the same key", request.call, failure)
                await asyncio.sleep(backoff(attempt, base=0.5, cap=5.0))
        assert failure is not None
        raise unclear or failure

    async def _token(self) -> Hidden[str]:
        """What happened to the request for a token did not happen to the call."""
        try:
            return Hidden(await self._pass.token())
        except UNCLEAR as error:
            raise NotSent(f"no token could be had: {error}") from error

    def _headers(self, request: Outgoing, token: Hidden[str]) -> dict[str, str]:
        profile = self.profile
        headers = {
            **profile.server.extra_headers,
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        if token.value:
            headers["Authorization"] = f"Bearer {token.value}"
        if name := profile.server.request_id_header:
            headers[name] = request.key
        has_key = request.call not in _READS and profile.idempotency.offered
        if has_key and (name := profile.idempotency.header):
            headers[name] = request.key
        return headers

    def _writer(self, call: Call) -> Writer:
        try:
            return self._writers[call]
        except KeyError:
            raise UsageError(f"the bank offers no {call}: paths.{call} is empty") from None
