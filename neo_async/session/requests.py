"""Authenticated calls: reads and order requests in the current session.

Every service makes its calls through SessionRequests, so that an ended session, a 429 and the
redaction of errors are handled in one place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from neo_async.config import Timeouts
from neo_async.errors import NotSent, ProtocolError, RateLimited, SessionEnded, StaticIpRefused
from neo_async.model.address import address_problem, shown_address, uses_tls
from neo_async.model.answer import Answer
from neo_async.model.session import Session
from neo_async.session.login import FIN_KEY
from neo_async.session.manager import SessionManager
from neo_async.transport.duplicate_read import with_duplicate
from neo_async.transport.hidden import Hidden
from neo_async.transport.http import Download
from neo_async.transport.kinds import Kind
from neo_async.transport.meter import Meter
from neo_async.transport.pool import HandOver
from neo_async.transport.reading import AT_ONCE
from neo_async.transport.redaction import Secrets
from neo_async.transport.start import Start
from neo_async.transport.trading_state import TradingState
from neo_async.wire.endpoints import Auth, Endpoint
from neo_async.wire.forms import FORM_CONTENT_TYPE, encode_form
from neo_async.wire.orders import CancelForm, ModifyForm, PlaceForm, encode_order

T = TypeVar("T")

BETWEEN_LOGINS_SECONDS: Final = 300.0
"""Time in which no login is made for a call that was refused even after the last one: it lacks
something else, such as a permission."""


class SessionRequests:
    """Makes authenticated calls, and repeats one after an ended session or a 429."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self._limiter = manager.limiter
        self._http = manager.http
        self._read = manager.reader.read
        self._read_now = manager.reader.read_now
        self.meter: Meter = manager.meter
        self.timeouts: Timeouts = manager.timeouts
        self._prepared_for: Session | None = None
        """Session of the last call: what was prepared for it is dropped when another is current."""
        self._heads: dict[str, Hidden[bytes]] = {}
        """Prepared heads of order requests, by endpoint name."""
        self._ended = _EndedSessions()

    @property
    def ucc(self) -> str:
        """Client code of the account."""
        return self._manager.ucc

    @property
    def is_open(self) -> bool:
        """Whether there is a session."""
        return self._manager.is_open

    @property
    def renewals(self) -> int:
        """Number of times the session was renewed because the broker had ended it."""
        return self._manager.renewals

    @property
    def trading_state(self) -> TradingState:
        """The state that is checked at the start of every request."""
        return self._limiter.state

    @property
    def is_throttled(self) -> bool:
        """Whether a request waits for the rate limit."""
        return self._limiter.waiting > 0

    @property
    def is_order_breaker_closed(self) -> bool:
        """Whether the server of orders counts as reachable."""
        lane = self._manager.open_lane
        return lane is None or lane.breaker.is_closed

    async def check_orders(self, kind: Kind) -> None:
        """Raise BreakerOpen when an order request would fail at once; see Lane.check."""
        if (lane := self._manager.open_lane) is not None:
            await lane.check(kind)

    def secrets(self) -> Secrets:
        """Return what no error about an answer or a message of the broker may repeat."""
        return self._manager.secrets()

    # --- reads --------------------------------------------------------------------------------

    async def read(
        self,
        endpoint: Endpoint,
        decode: Callable[[Answer], T],
        *,
        form: object = None,
        suffix: str = "",
        params: Mapping[str, str] | None = None,
    ) -> T:
        """Make a call that changes nothing. `suffix` is appended to the path."""
        body = b"" if form is None else encode_form(form)

        def send(session: Session) -> Awaitable[Answer]:
            return self._send_read(session, endpoint, suffix, body, params)

        return await self._call(endpoint, send, decode, self.timeouts.read)

    async def read_open(self, endpoint: Endpoint, decode: Callable[[Answer], T]) -> T:
        """Make a call that needs no login; before one, at the host that logins go to."""
        if self.is_open:
            return await self.read(endpoint, decode)
        endpoints = self._manager.endpoints
        answer = await self._http.request(
            endpoint.method,
            (endpoints.base or endpoints.login).rstrip("/") + endpoint.path,
            headers=self._access_headers(),
            timeout=self.timeouts.read,
            start=await self._read_start(),
        )
        return await self._read(Kind.READ, answer, decode)

    async def _send_read(
        self,
        session: Session,
        endpoint: Endpoint,
        suffix: str,
        body: bytes,
        params: Mapping[str, str] | None,
    ) -> Answer:
        """Send a read, and a duplicate of it where the answer takes long."""
        timeouts = self.timeouts
        login = self._manager.endpoints.login.rstrip("/")
        url = (login if endpoint.is_at_login else session.base_url) + endpoint.path + suffix
        await self._http.check(url)

        def ask(start: Start) -> Coroutine[Any, Any, Answer]:
            return self._http.request(
                endpoint.method,
                url,
                headers=self._headers(endpoint.auth, session),
                body=body,
                params=params,
                timeout=timeouts.read,
                start=start,
            )

        async def ask_again() -> Answer:
            self.meter.duplicate_reads += 1
            return await ask(await self._read_start())

        first = ask(await self._read_start())
        if timeouts.duplicate_read_after is None:
            return await first
        return await with_duplicate(
            first, ask_again, delay=timeouts.duplicate_read_after, timeout=timeouts.read
        )

    async def _read_start(self) -> Start:
        """Wait until a read may start."""
        return await Start(self._limiter, Kind.READ).take()

    @contextlib.asynccontextmanager
    async def download(self, url: str) -> AsyncIterator[Download]:
        """Get a public file from an address that the broker gave; see HttpClient.download. Parse
        the file within the block: the address may repeat what was sent to the broker, and errors of
        the block show no secret.

        Raises ProtocolError when the address is none that a client may connect to, such as one
        without TLS from a broker that was called over TLS.
        """
        endpoints = self._manager.endpoints
        root = self._manager.current.base_url if self.is_open else endpoints.base or endpoints.login
        problem = address_problem(url, tls_only=uses_tls(root), insecure=endpoints.insecure)
        with self.secrets().kept_out_of_errors():
            if problem:
                raise ProtocolError(f"the broker offers a file at {shown_address(url)}: {problem}")
            async with self._http.download(
                url, timeout=self.timeouts.download, between=self.timeouts.read
            ) as file:
                yield file

    # --- order requests -----------------------------------------------------------------------

    def order(
        self,
        kind: Kind,
        endpoint: Endpoint,
        form: PlaceForm | ModifyForm | CancelForm,
        decode: Callable[[Answer], T],
        record: HandOver | None = None,
    ) -> Awaitable[T]:
        """Make a call on the order lane.

        Raises NotSent, AnswerLost, RateLimited, or what `decode` raises. `record` is marked when
        the bytes are handed to a socket: a caller that is cancelled reads from it whether the
        request may have had an effect.
        """
        body = encode_order(form)

        def send(session: Session) -> Awaitable[Answer]:
            head = self._heads.get(endpoint.name) or self._prepare_head(endpoint, session)
            data = Hidden(b"%b%d\r\n\r\n%b" % (head.value, len(body), body))
            lane = self._manager.open_lane or self._manager.lane  # the latter raises NotLoggedIn
            return lane.request(kind, data, self.timeouts.order, record)

        return self._call(endpoint, send, decode, self.timeouts.order, kind=kind)

    def _prepare_head(self, endpoint: Endpoint, session: Session) -> Hidden[bytes]:
        """Write an order request up to the value of Content-Length: all that is the same for every
        order of a session."""
        path = urlsplit(session.base_url).path + endpoint.path
        lines = Hidden(
            [
                f"{endpoint.method} {path} HTTP/1.1",
                f"Host: {self._manager.lane.host_header}",
                *(f"{k}: {v}" for k, v in self._headers(endpoint.auth, session).items()),
            ]
        )
        head = Hidden(("\r\n".join(lines.value) + "\r\nContent-Length: ").encode("ascii"))
        self._heads[endpoint.name] = head
        return head

    # --- sending, and sending again -----------------------------------------------------------

    async def _call(
        self,
        endpoint: Endpoint,
        send: Callable[[Session], Awaitable[Answer]],
        decode: Callable[[Answer], T],
        patience: float,
        *,
        kind: Kind = Kind.READ,
    ) -> T:
        """Send and decode; after an ended session or a 429 send once more.

        A request refused for its session had no effect. Of an order that got a 429 that is not
        certain: it is never reported as not sent.
        """
        manager, ended, path = self._manager, self._ended, endpoint.path
        renewed, throttled = False, None
        while True:
            session = manager.session or manager.current  # the latter raises NotLoggedIn
            if session is not self._prepared_for:
                self._prepare_for(session)
            if ended.paths and path in ended.paths and self._waits_for_renewal(kind):
                await manager.renew(session, kind=kind)
                continue
            try:
                answer = await send(session)
            except (NotSent, RateLimited) as error:
                if throttled is not None and kind is not Kind.READ:
                    raise throttled from error
                raise
            try:
                if len(answer.body) <= AT_ONCE:
                    result = self._read_now(kind, answer, decode)
                else:
                    result = await self._read(kind, answer, decode)
            except (SessionEnded, StaticIpRefused) as error:
                # The rule of static addresses holds for orders only: a read that is refused with
                # its codes has lost its session.
                if isinstance(error, StaticIpRefused) and kind is not Kind.READ:
                    raise
                if not self._is_helped_by_login(endpoint, session, is_retry=renewed):
                    raise
                renewed = True
                self.meter.retries += 1
                await manager.renew(session, kind=kind)
            except RateLimited as refusal:
                throttled = refusal
                patience -= self._limiter.pause(refusal.retry_after, kind)
                if patience < 0:
                    raise
                self.meter.retries += 1
            else:
                self._limiter.succeeded()
                if ended.unhelped:
                    ended.unhelped.pop(path, None)
                return result

    def _prepare_for(self, session: Session) -> None:
        """Drop what was prepared for the session before this one."""
        self._prepared_for = session
        self._heads.clear()
        self._ended.paths.clear()

    def _waits_for_renewal(self, kind: Kind) -> bool:
        """Return whether a call to a path that found the session ended waits for the login that
        is being made.

        Sent now it would be refused, and take the room in the rate limit that the login waits for.
        Calls to other paths are sent: the session may have ended for that path only. Cancels are
        always sent.
        """
        return kind is not Kind.CANCEL and self._manager.is_renewing

    def _is_helped_by_login(self, endpoint: Endpoint, session: Session, *, is_retry: bool) -> bool:
        """Return whether a call that found `session` ended is worth another try, after a new login
        where there is none yet."""
        if endpoint.auth is Auth.ACCESS:
            return False  # a call that carries no login is not refused for want of one
        return self._ended.is_helped_by_login(
            endpoint.path,
            asyncio.get_running_loop().time(),
            is_current=self._manager.is_open and session is self._manager.current,
            is_retry=is_retry,
        )

    # --- headers ------------------------------------------------------------------------------

    def _headers(self, auth: Auth, session: Session) -> dict[str, str]:
        if auth is Auth.ACCESS:
            return self._access_headers()
        headers = {
            "accept": "application/json",
            "Sid": session.sid,
            "Auth": session.token,
            "neo-fin-key": FIN_KEY,
            "Content-Type": FORM_CONTENT_TYPE,
        }
        if auth is Auth.ORDER:
            headers["Authorization"] = self._manager.credentials.consumer_key
        return headers

    def _access_headers(self) -> dict[str, str]:
        return {
            "Authorization": self._manager.credentials.consumer_key,
            "accept": "application/json",
        }


class _EndedSessions:
    """Paths that found their session ended, and those of them that a login did not help."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        """Paths that found the current session ended."""
        self.unhelped: dict[str, float] = {}
        """Loop time at which a path was refused even in a new session."""

    def is_helped_by_login(
        self, path: str, now: float, *, is_current: bool, is_retry: bool
    ) -> bool:
        """Return whether a path that was refused at loop time `now` is worth another try.

        `is_current` is whether it was refused in the session that is still current, `is_retry`
        whether this was that other try.
        """
        if is_retry:
            self.unhelped[path] = now
            return False
        if not is_current:
            return True
        unhelped_at = self.unhelped.get(path)
        if unhelped_at is not None and now < unhelped_at + BETWEEN_LOGINS_SECONDS:
            return False
        self.paths.add(path)
        return True
