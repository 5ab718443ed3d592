"""Authentication: an OAuth 2 token for client id and secret, or the id as API key."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from neo_async.banking.profile import Server
from neo_async.base import logs
from neo_async.errors import (
    LoginFailed,
    NeoError,
    ProtocolError,
    RateLimited,
    ServerError,
    UsageError,
)
from neo_async.model.answer import Answer
from neo_async.transport.hidden import Hidden
from neo_async.transport.http import HttpClient
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter
from neo_async.transport.reading import read_answer
from neo_async.transport.redaction import Secrets
from neo_async.transport.retry import TRANSIENT, retry
from neo_async.transport.start import Start
from neo_async.wire.answers import retry_after
from neo_async.wire.forms import FORM_CONTENT_TYPE
from neo_async.wire.lenient import UNREADABLE

log = logging.getLogger(logs.BANKING)

_EARLY = 60.0
"""Seconds before its end at which a token is renewed; at most half of its life."""

_TRIES = 3
"""Most requests for one renewal; they change nothing."""

_FALLBACK_LIFE = 300.0
"""Life of a token in seconds when the bank gives none, or an impossible one."""

_LONGEST_LIFE = 366 * 86_400.0


_TOKEN = re.compile(r"[!-~]+")
_LONGEST_TOKEN = 8000
"""Longest token in characters; servers accept header lines of about 8 KiB."""


class Identity(msgspec.Struct, frozen=True):
    """Client id and secret of the application in the bank's portal. Never printed."""

    client_id: str
    client_secret: str

    def __post_init__(self) -> None:
        for name in ("client_id", "client_secret"):
            if not _is_text(Hidden(getattr(self, name))):
                raise UsageError(f"{name} is empty or no text: copy it from the Auth tab")

    def secrets(self, *others: str) -> Secrets:
        """Return the secrets that errors about an answer must not repeat: id, secret and
        `others`."""
        return Secrets(self.client_id, self.client_secret, *others)

    def __repr__(self) -> str:
        return "Identity(...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return []


def _is_text(value: Hidden[object]) -> bool:
    text = value.value
    return isinstance(text, str) and bool(text) and text.isprintable()


class _TokenAnswer(msgspec.Struct):
    access_token: str
    expires_in: float | None = None

    def __repr__(self) -> str:
        return "_TokenAnswer(...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return []


class TokenKeeper:
    """Keeps a token until shortly before its end, and renews it once for all waiting calls."""

    def __init__(
        self,
        identity: Identity,
        server: Server,
        *,
        http: HttpClient,
        limiter: Limiter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._server = server
        self._http = http
        self._limiter = limiter
        self._clock = clock
        self._token = ""
        self._good_until = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self.renewals = 0
        """Number of tokens received."""

    async def token(self) -> str:
        """Return a valid token. Raises LoginFailed when the bank refuses id and secret, and the
        errors of a request."""
        if not self._token or self._clock() >= self._good_until:
            await self._renewed()
        return self._token

    def refused(self, token: str) -> None:
        """Discard a token that the bank has refused."""
        if token == self._token:  # else it has been renewed meanwhile
            self._token = ""

    async def close(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        self._token = ""

    def __repr__(self) -> str:
        left = self._good_until - self._clock()
        state = f"good for {left:.0f} s" if self._token and left > 0 else "no token"
        return f"<TokenKeeper {state}, {self.renewals} renewals>"

    async def _renewed(self) -> None:
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew(), name="bank token")
            self._renewal.add_done_callback(self._renewal_done)
        # A waiter that is cancelled must not cancel the renewal for the others.
        await asyncio.shield(self._renewal)

    def _renewal_done(self, renewal: asyncio.Task[None]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # every waiter gets it; without waiters it is not an error

    async def _renew(self) -> None:
        token = await retry(
            self._request,
            self._may_ask_again,
            base=0.5,
            cap=5.0,
            attempts=_TRIES,
            on_retry=lambda error: log.info("no token yet: %s", error),
        )
        life = token.expires_in
        if life is None or not 0 < life <= _LONGEST_LIFE:
            life = _FALLBACK_LIFE
        self._token = token.access_token
        self._good_until = self._clock() + life - min(_EARLY, life / 2)
        self.renewals += 1
        log.info("the bank gave a token for %.0f s", life)

    def _may_ask_again(self, error: NeoError) -> bool:
        if isinstance(error, RateLimited):
            return self._limiter.pause(error.retry_after) <= self._server.timeout
        return isinstance(error, TRANSIENT)

    async def _request(self) -> _TokenAnswer:
        form = Hidden(
            {
                "grant_type": "client_credentials",
                "client_id": self._identity.client_id,
                "client_secret": self._identity.client_secret,
            }
        )
        secrets = self._identity.secrets(*self._server.extra_headers.values())
        start = await Start(self._limiter, Kind.CANCEL).take()  # every other call waits for it
        answer = await self._http.request(
            "POST",
            self._server.base_url.rstrip("/") + self._server.token_path,
            headers={
                **self._server.extra_headers,
                "Content-Type": FORM_CONTENT_TYPE,
                "Accept": "application/json",
            },
            body=urlencode(form.value).encode(),
            timeout=self._server.timeout,
            start=start,
        )
        with secrets.kept_out_of_errors():
            return await read_answer(answer, _read)


class Authentication:
    """Adds the authentication to requests."""

    def __init__(self, identity: Identity, server: Server, keeper: TokenKeeper | None) -> None:
        """Send the client id as API key when there is no keeper."""
        self._identity = identity
        self._extra = tuple(server.extra_headers.values())
        self._keeper = keeper
        self._params = None if keeper else {server.apikey_param: identity.client_id}

    @property
    def params(self) -> Mapping[str, str] | None:
        return self._params

    async def token(self) -> str:
        """Return a token; empty when none is needed."""
        return await self._keeper.token() if self._keeper else ""

    def secrets(self, token: str) -> Secrets:
        """Return the secrets that errors about the answer to a request with this token must not
        repeat."""
        return self._identity.secrets(token, *self._extra)

    def refused(self, token: str) -> bool:
        """Return whether another try may succeed after the bank has refused this token."""
        if self._keeper is None:
            return False
        self._keeper.refused(token)
        return True


def _read(answer: Answer) -> _TokenAnswer:
    """Return the token of an answer. Errors only repeat the description in the body, because it may
    contain the token."""
    if answer.status == 429:
        raise RateLimited("too many requests for a token", retry_after=retry_after(answer.headers))
    if answer.status >= 500:
        raise ServerError("the bank gave no token", status=answer.status)
    if answer.status >= 300:
        raise LoginFailed(_refusal(answer.body), status=answer.status)
    try:
        token = msgspec.json.decode(answer.body, type=_TokenAnswer, strict=False)
    except UNREADABLE:
        raise ProtocolError("the answer to the request for a token holds none") from None
    if len(token.access_token) > _LONGEST_TOKEN or not _TOKEN.fullmatch(token.access_token):
        raise ProtocolError(
            "the answer to the request for a token holds an empty one, or one that is not valid in "
            "a header"
        )
    return token


def _refusal(body: bytes) -> str:
    """Return the error description of RFC 6749 5.2."""
    words: Any = None
    try:
        content = msgspec.json.decode(body)
    except UNREADABLE:
        content = None
    if isinstance(content, dict):
        words = content.get("error_description") or content.get("error")
    reason = words if isinstance(words, str) else "no reason given"
    return f"the bank gave no token ({reason}): check client id, client secret and token address"
