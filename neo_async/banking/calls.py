"""Requests to the bank: token, rate limits, and what may be sent again.

Every request has a key of its own, as request id and idempotency key. `send` sends until a request
may have had an effect; `send_until_answered` sends the same bytes under the same key until there is
an answer, which is safe for requests that change nothing, or that the bank recognises by their key.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from uuid import uuid4

from neo_async.banking.answers import Refusals
from neo_async.banking.mapping import Formats, Json, Outgoing, Writer
from neo_async.banking.names import Call
from neo_async.banking.profile import BankingProfile
from neo_async.banking.token import Authentication
from neo_async.base import logs
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
from neo_async.transport.hidden import Hidden
from neo_async.transport.http import HttpClient
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter
from neo_async.transport.reading import read_answer
from neo_async.transport.redaction import Secrets
from neo_async.transport.retry import retry
from neo_async.transport.start import Start

T = TypeVar("T")

log = logging.getLogger(logs.BANKING)

UNCLEAR = (AnswerLost, ServerError, ProtocolError)
"""Errors after which a request may have taken effect."""

TRIES = 4
RETRY_BASE = 0.5
RETRY_CAP = 5.0
"""Bounds of the pause between two tries, in seconds."""

_KINDS = {Call.FETCH: Kind.READ, Call.INQUIRY: Kind.READ, Call.REFUND_STATUS: Kind.READ}
"""The kinds of reads; all other calls change something, and are not delayed by reads."""

_READS = frozenset(_KINDS)


def new_key() -> str:
    return str(uuid4())


class BankCalls:
    """Sends requests, and returns the contents of their answers."""

    def __init__(
        self,
        profile: BankingProfile,
        authentication: Authentication,
        *,
        http: HttpClient,
        limiter: Limiter,
    ) -> None:
        self.profile = profile
        self.formats = Formats(profile)
        self.refusals = Refusals(profile)
        self._authentication = authentication
        self._http = http
        self._limiter = limiter
        self.secrets = Secrets()
        """Secrets of the last request, which errors about its answer must not repeat."""
        self._writers = {
            call: Writer(profile, call, self.formats) for call in Call if profile.path(call)
        }

    def offers(self, call: Call) -> bool:
        """Return whether the profile has a path for a call."""
        return call in self._writers

    def has_field(self, call: Call, meaning: str) -> bool:
        """Return whether the bank has a field for it."""
        return self._writer(call).has_field(meaning)

    def repeatable(self, call: Call) -> bool:
        """Return whether sending the same request twice has the effect of sending it once."""
        return call in _READS or self.profile.idempotency.offered

    def request(
        self,
        call: Call,
        values: Mapping[str, object],
        *,
        items: Sequence[Mapping[str, object]] | None = None,
        key: str = "",
    ) -> Outgoing:
        """Return a request. Raises UsageError when the bank does not offer the call."""
        return self._writer(call).request(values, key=key or new_key(), items=items)

    async def send(self, request: Outgoing) -> Json:
        """Send until the bank accepts it: again after a token that has ended, and after a 429 while
        the timeout allows. Neither had an effect.

        Raises NotSent, RateLimited, SessionEnded, LoginFailed or BankRejected when the request had
        no effect, and one of UNCLEAR when that is unknown.
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
                params=self._authentication.params,
                timeout=self.profile.server.timeout,
                kind=kind,
                start=start,
            )
            self.secrets = self._authentication.secrets(token.value)
            open_ = functools.partial(self.refusals.open, request.call)
            try:
                with self.secrets.kept_out_of_errors():
                    content = await read_answer(answer, open_)
            except SessionEnded:
                if renewed or not self._authentication.refused(token.value):
                    raise
                renewed = True
            except RateLimited as refusal:
                patience -= self._limiter.pause(refusal.retry_after)
                if patience < 0:
                    raise
            else:
                self._limiter.succeeded()
                return content

    def read_content(self, read: Callable[[Json], T], content: Json) -> T:
        """Return what `read` reads from a content. Raises as `read` does, without any secret."""
        with self.secrets.kept_out_of_errors():
            return read(content)

    async def send_until_answered(self, request: Outgoing) -> Json:
        """Send as `send` does, and again a few times while there is no answer. Only for requests
        that are `repeatable`.

        Raises as `send` does: one of UNCLEAR when any of the tries did.
        """
        unclear: NeoError | None = None

        async def attempt() -> Json:
            nonlocal unclear
            try:
                return await self.send(request)
            except UNCLEAR as error:
                unclear = error
                raise

        try:
            return await retry(
                attempt,
                lambda error: isinstance(error, (*UNCLEAR, NotSent)),
                base=RETRY_BASE,
                cap=RETRY_CAP,
                attempts=TRIES,
                on_retry=lambda error: log.info(
                    "%s: %s; trying again under the same key", request.call, error
                ),
            )
        except BankRejected:
            raise
        except (NotSent, BrokerError) as error:
            # An earlier try may have taken effect, whatever happened to the last one.
            if unclear is None or error is unclear:
                raise
            raise unclear from error

    async def _token(self) -> Hidden[str]:
        """Return a token. Raises NotSent when its request failed, because the call itself was not
        sent."""
        try:
            return Hidden(await self._authentication.token())
        except UNCLEAR as error:
            raise NotSent(f"no token was received: {error}") from error

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
