"""Every call to Kite: its headers, its limiter, and what is done about 429 or no connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

from neo_async.config import KiteEndpoints, Timeouts
from neo_async.errors import NotLoggedIn, NotSent, RateLimited, UsageError
from neo_async.kite.wire import FORM_HEADERS, VERSION_HEADERS, form_body
from neo_async.model.answer import Answer
from neo_async.transport.backoff import backoff
from neo_async.transport.hidden import Hidden
from neo_async.transport.http import Download, HttpClient
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter
from neo_async.transport.reading import read_answer
from neo_async.transport.redaction import Secrets
from neo_async.transport.start import Start
from neo_async.transport.tls import trusting

T = TypeVar("T")


class Calls:
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
        """Raises UsageError when key or token cannot be one."""
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
        """Seconds by which Kite's clock was ahead of ours in its last answer, as its Date header
        tells."""
        self.use_token(access_token)

    def use_token(self, token: Hidden[str]) -> None:
        """Raises UsageError when it can be none."""
        _checked("access_token", token)
        self._headers = Hidden(
            {**VERSION_HEADERS, "Authorization": f"token {self._api_key}:{token.value}"}
        )
        self.secrets = Secrets(self._api_key, token.value)
        """What the reading of answers keeps out of errors."""

    async def read(self, path: str, decode: Callable[[Answer], T]) -> T:
        """Make a call that changes nothing."""
        return await self._call(Kind.READ, "GET", path, None, decode, self._timeouts.read)

    async def change(
        self,
        kind: Kind,
        method: str,
        path: str,
        form: Mapping[str, str] | None,
        decode: Callable[[Answer], T],
    ) -> T:
        """Make a call that changes something. While no byte of it has left, it is tried again.

        Raises NotSent, AnswerLost, or what `decode` makes of the answer.
        """
        failures, give_up_at = 0, 0.0
        while True:
            try:
                return await self._call(kind, method, path, form, decode, self._timeouts.order)
            except NotSent:
                now = asyncio.get_running_loop().time()
                failures += 1
                if failures == 1:
                    give_up_at = now + self._timeouts.order
                delay = backoff(failures, base=0.1, cap=0.5)
                if now + delay >= give_up_at:
                    raise
                await asyncio.sleep(delay)

    @contextlib.asynccontextmanager
    async def download(self, path: str) -> AsyncIterator[Download]:
        """Get a file of any size. What the caller makes of it belongs into the block, so that its
        errors repeat no secret."""
        await self._turn(Kind.READ)
        with self.secrets.kept_out_of_errors():
            async with self._http.download(
                self._root + path,
                timeout=self._timeouts.download,
                between=self._timeouts.read,
                headers=self._headers.value,
            ) as file:
                yield file

    async def close(self) -> None:
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
        """Send and read; after a 429, which took no effect, send once more when it may be."""
        timeout = patience
        while True:
            start = await self._turn(kind)
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

    async def _turn(self, kind: Kind) -> Start:
        await self._http.check(self._root)
        start = await Start(self._limiter, kind).take()
        if self._is_closed:
            raise NotLoggedIn("closed: make another KiteMutualFunds")
        return start

    def _note_date(self, answer: Answer) -> None:
        with contextlib.suppress(KeyError, ValueError, OverflowError):
            theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
            self.skew = theirs - self._clock()


def _checked(name: str, value: Hidden[str]) -> str:
    """The value, which is never shown: keys and tokens are secrets."""
    if not value.value:
        raise UsageError(f"{name} is empty")
    if (
        not (value.value.isascii() and value.value.isprintable())
        or " " in value.value
        or ":" in value.value
    ):
        raise UsageError(f"{name} holds blanks, colons, line ends or letters beyond ASCII")
    return value.value
