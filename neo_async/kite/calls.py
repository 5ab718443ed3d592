"""Calls to Kite: headers, rate limit, pauses after a 429, retries while nothing was sent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

from neo_async.config import KiteEndpoints, Timeouts
from neo_async.errors import NotLoggedIn, NotSent, RateLimited, UsageError
from neo_async.kite.wire import FORM_HEADERS, VERSION_HEADERS, form_body
from neo_async.model.answer import Answer
from neo_async.transport.hidden import Hidden
from neo_async.transport.http import Download, HttpClient
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter
from neo_async.transport.reading import read_answer
from neo_async.transport.redaction import Secrets
from neo_async.transport.retry import retry
from neo_async.transport.start import Start
from neo_async.transport.tls import trusting

T = TypeVar("T")


class Calls:
    """Sends requests to Kite with its headers and within its rate limit."""

    def __init__(
        self,
        api_key: Hidden[str],
        access_token: Hidden[str],
        endpoints: KiteEndpoints,
        *,
        limiter: Limiter,
        timeouts: Timeouts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raise UsageError when the API key or the access token is malformed."""
        self._api_key = _checked("api_key", api_key)
        self._root = endpoints.api.rstrip("/")
        self._limiter = limiter
        self._timeouts = timeouts
        self._clock = clock
        self._http = HttpClient(
            connect_timeout=timeouts.connect,
            tls=trusting(endpoints.ca_file),
            insecure=endpoints.insecure,
        )
        self._is_closed = False
        self.skew = 0.0
        """Seconds by which Kite's clock was ahead of the local one, by the Date header of its
        last answer."""
        self.use_token(access_token)

    def use_token(self, token: Hidden[str]) -> None:
        """Send this access token from now on. Raises UsageError when it is malformed."""
        _checked("access_token", token)
        self._headers = Hidden(
            {**VERSION_HEADERS, "Authorization": f"token {self._api_key}:{token.value}"}
        )
        self.secrets = Secrets(self._api_key, token.value)
        """Credentials that errors about answers must not repeat."""

    async def read(self, path: str, decode: Callable[[Answer], T]) -> T:
        """Send a GET request, and return what `decode` reads from its answer."""
        return await self._call(Kind.READ, "GET", path, None, decode, self._timeouts.read)

    async def change(
        self,
        kind: Kind,
        method: str,
        path: str,
        form: Mapping[str, str] | None,
        decode: Callable[[Answer], T],
    ) -> T:
        """Send a request that changes something; send it again only while no byte of it has left.

        Raises NotSent, AnswerLost, and what `decode` raises.
        """
        return await retry(
            lambda: self._call(kind, method, path, form, decode, self._timeouts.order),
            lambda error: isinstance(error, NotSent),
            base=0.1,
            cap=0.5,
            within=self._timeouts.order,
        )

    @contextlib.asynccontextmanager
    async def download(self, path: str) -> AsyncIterator[Download]:
        """Download a file of any size. Read it inside the block, where errors are kept free of
        credentials."""
        await self._acquire(Kind.READ)
        with self.secrets.kept_out_of_errors():
            async with self._http.download(
                self._root + path,
                timeout=self._timeouts.download,
                between=self._timeouts.read,
                headers=self._headers.value,
            ) as file:
                yield file

    async def close(self) -> None:
        """Close every connection. Calls raise NotLoggedIn from then on."""
        self._is_closed = True
        await self._http.close()

    async def _call(
        self,
        kind: Kind,
        method: str,
        path: str,
        form: Mapping[str, str] | None,
        decode: Callable[[Answer], T],
        patience: float,
    ) -> T:
        """Send and decode; send again after a 429, which had no effect, while `patience` lasts."""
        timeout = patience
        while True:
            start = await self._acquire(kind)
            headers, secrets = self._headers, self.secrets
            answer = await self._http.request(
                method,
                self._root + path,
                headers=headers.value if form is None else {**headers.value, **FORM_HEADERS},
                body=b"" if form is None else form_body(form),
                timeout=timeout,
                kind=kind,
                start=start,
            )
            self._note_date(answer)
            try:
                with secrets.kept_out_of_errors():
                    result = await read_answer(answer, decode)
            except RateLimited as refusal:
                patience -= self._limiter.pause(refusal.retry_after)
                if patience < 0:
                    raise
            else:
                self._limiter.succeeded()
                return result

    async def _acquire(self, kind: Kind) -> Start:
        """Check the breaker and wait for the rate limit. Raises NotLoggedIn after `close`."""
        await self._http.check(self._root)
        start = await Start(self._limiter, kind).take()
        if self._is_closed:
            raise NotLoggedIn("closed: make another KiteMutualFunds")
        return start

    def _note_date(self, answer: Answer) -> None:
        with contextlib.suppress(KeyError, ValueError, OverflowError):
            kite_time = parsedate_to_datetime(answer.headers["date"]).timestamp()
            self.skew = kite_time - self._clock()


def _checked(name: str, value: Hidden[str]) -> str:
    """Return a key or token that is well formed. Its value never appears in an error."""
    if not value.value:
        raise UsageError(f"{name} is empty")
    if (
        not (value.value.isascii() and value.value.isprintable())
        or " " in value.value
        or ":" in value.value
    ):
        raise UsageError(f"{name} holds blanks, colons, line ends or letters beyond ASCII")
    return value.value
