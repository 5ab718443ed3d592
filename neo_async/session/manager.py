"""The current session: logged in once, renewed once for all callers, with its order lane.

Authenticated calls are made by SessionRequests, on top of this.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from neo_async.base import logs
from neo_async.base.logs import logger_of
from neo_async.config import BreakerConfig, Credentials, Endpoints, PoolLimits, Timeouts
from neo_async.errors import (
    LoginFailed,
    NotLoggedIn,
    ProtocolError,
    RateLimited,
    ServerError,
    SessionEnded,
    TransportError,
    UsageError,
)
from neo_async.model.address import SOCKET, WEB, address_problem, shown_address
from neo_async.model.session import Session
from neo_async.session.login import Authenticator
from neo_async.transport.breaker import Breakers
from neo_async.transport.hidden import Hidden
from neo_async.transport.http import HttpClient
from neo_async.transport.kinds import Kind
from neo_async.transport.lane import Lane
from neo_async.transport.limiter import Limiter
from neo_async.transport.meter import Meter
from neo_async.transport.reading import AnswerReader
from neo_async.transport.redaction import Secrets
from neo_async.transport.tls import trusting
from neo_async.wire.login import header_problem


class SessionManager:
    """Keeps one session, and one order lane to its server, from login to logout."""

    def __init__(
        self,
        credentials: Credentials,
        endpoints: Endpoints,
        *,
        limiter: Limiter,
        timeouts: Timeouts,
        pool: PoolLimits,
        breaker: BreakerConfig | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives Unix seconds."""
        self.credentials = credentials
        self._log = logger_of(logs.SESSION, credentials.ucc)
        self.endpoints = endpoints
        self.limiter = limiter
        self.transport_log = logger_of(logs.TRANSPORT, credentials.ucc)
        limiter.log_to(self.transport_log)
        limiter.patience = tuple(
            timeouts.read if kind is Kind.READ else timeouts.order for kind in Kind
        )
        self.timeouts = timeouts
        self._pool = pool
        self._clock = clock
        self.tls: ssl.SSLContext | None = trusting(endpoints.ca_file)
        """Certificate authorities to trust; None for the system's."""
        self.breakers = Breakers(breaker, self.transport_log)
        self.meter = Meter()
        self.http = HttpClient(
            connect_timeout=timeouts.connect,
            tls=self.tls,
            breakers=self.breakers,
            meter=self.meter,
            insecure=endpoints.insecure,
        )
        self.reader = AnswerReader(self.meter, self.secrets)
        self._authenticator = Authenticator(
            credentials,
            endpoints,
            self.http,
            limiter,
            self.reader,
            timeout=timeouts.login,
            clock=clock,
        )
        self.open_lane: Lane | None = None
        """Order lane of the session; None before login and after logout."""
        self._lane_server = ""
        self.session: Session | None = None
        """The session in use; None before login and after logout."""
        self._renewal: asyncio.Task[None] | None = None
        self._halted: asyncio.Future[None] | None = None
        """Future that is done when trading is halted: callers that wait for a renewal check the
        trading state."""
        limiter.state.on_halt(self._wake_halted)
        self.logged_in_at = 0.0
        """Unix seconds of the last login; 0 before the first."""
        self.renewals = 0
        """Number of times the session was renewed because the broker had ended it."""

    @property
    def ucc(self) -> str:
        """Client code of the account."""
        return self.credentials.ucc

    @property
    def current(self) -> Session:
        """The session in use. Raises NotLoggedIn before login and after logout."""
        if self.session is None:
            raise NotLoggedIn("not logged in: use `async with NeoClient(...)` or await login()")
        return self.session

    @property
    def lane(self) -> Lane:
        """The order lane of the session. Raises NotLoggedIn before login and after logout."""
        if self.open_lane is None:
            raise NotLoggedIn("the order lane is not open: log in first")
        return self.open_lane

    @property
    def is_open(self) -> bool:
        """Whether there is a session."""
        return self.session is not None

    @property
    def is_sending(self) -> bool:
        """Whether an order request may be on its way."""
        return self.open_lane is not None and self.open_lane.is_busy

    @property
    def is_renewing(self) -> bool:
        """Whether a login is being made because the broker has ended the session."""
        return self._renewal is not None

    def secrets(self) -> Secrets:
        """Return what no error about an answer or a message of the broker may repeat."""
        credentials, session = self.credentials, self.session
        return Secrets(
            credentials.consumer_key,
            credentials.mobile_number,
            credentials.mobile_number.removeprefix("+91"),
            credentials.mpin,
            credentials.totp_secret,
            self._authenticator.used_code,
            *(() if session is None else (session.token, session.sid)),
        )

    def __repr__(self) -> str:
        if self.session is None:
            return "<SessionManager not logged in>"
        account = f"{self.session.ucc} at {self.session.base_url}"
        return f"<SessionManager {account}, {self.open_lane!r}, {self.renewals} renewals>"

    # --- login and logout ---------------------------------------------------------------------

    async def login(self, totp: str | None = None) -> Session:
        """Log in with a code made from the secret, or with the one given, and warm the lane.

        A code made from the secret may have been used up by an earlier process: when the broker
        refuses it, the next one is tried, once, after up to 30 s; also when the broker ends the
        login between its two steps, as at midnight.

        Raises WrongTotp, WrongMpin or ClockSkew, LoginFailed for what else the broker finds wrong,
        and TransportError when it cannot be reached. Credentials that were refused are not sent
        again until this is called again.
        """
        code = None if totp is None else Hidden(totp)
        del totp  # tracebacks may show local variables
        self._authenticator.refusal = None
        return await self._log_in(code)

    async def resume(self, session: Session) -> None:
        """Use a session that `login` returned earlier, maybe in another process, and warm the lane.
        If the broker has ended it meanwhile, the first call finds that out and renews it.

        Raises UsageError when it holds what no login answers, or an address that no secret may be
        sent to, and TransportError when its server cannot be reached.
        """
        for name, header in (("token", Hidden(session.token)), ("sid", Hidden(session.sid))):
            if problem := header_problem(header.value):
                raise UsageError(f"{name} of the session {problem}")
        for name, schemes in (("base_url", WEB), ("feed_url", SOCKET), ("realtime_url", SOCKET)):
            address: str = getattr(session, name)
            problem = address_problem(
                address,
                schemes=schemes,
                insecure=self.endpoints.insecure,
                is_base=name == "base_url",
            )
            if problem:
                raise UsageError(f"{name}={shown_address(address)} of the session: {problem}")
        await self._install(session)

    async def logout(self) -> None:
        """Forget the session and close every connection. The broker has no call for a logout: its
        own client only forgets the session, too."""
        self.session = None
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self.open_lane is not None:
            await self.open_lane.close()
            self.open_lane = None
            self._lane_server = ""
        await self.http.close()

    async def _log_in(self, totp: Hidden[str] | None = None) -> Session:
        session = await self._authenticator.login(totp)
        await self._install(session)
        self._log.info("logged in as %s at %s", session.ucc, session.base_url)
        return session

    async def _install(self, session: Session) -> None:
        """Make a session the current one, once there is an order lane to its server."""
        await self._open_lane(session.base_url)
        self.session = session
        self.logged_in_at = self._clock()

    async def _open_lane(self, base: str) -> None:
        """Open a warm lane to the server of `base`, and close one to another server. The lane is
        kept where the server stays the same."""
        parts = urlsplit(base)
        server = f"{parts.scheme}://{parts.netloc}"
        if server == self._lane_server:
            return
        lane = Lane(
            server,
            self.limiter,
            self._pool,
            connect_timeout=self.timeouts.connect,
            tls=self.tls,
            breakers=self.breakers,
            meter=self.meter,
            log=self.transport_log,
        )
        await lane.open()
        former, self.open_lane, self._lane_server = self.open_lane, lane, server
        if former is not None:
            await former.close()

    # --- renewal ------------------------------------------------------------------------------

    async def renew(self, ended: Session, *, kind: Kind = Kind.READ) -> None:
        """Log in again, once for all callers that found the same session ended. `kind` is the kind
        of the request that needs the login.

        Raises LoginFailed when the broker refuses the login, or has refused one before and `login`
        was not called since, and SessionEnded when it cannot be made: without a TOTP secret, or
        because network or broker failed; and Halted.
        """
        if self.session is not ended:
            return  # another caller has renewed it already
        if self._renewal is None:
            if (refusal := self._authenticator.refusal) is not None:
                raise refusal.with_traceback(None)
            self._log.info("the broker has ended the session: logging in again")
            self._renewal = asyncio.create_task(self._renew(), name="session renewal")
            self._renewal.add_done_callback(self._renewal_done)
        renewal = self._renewal
        await self._renewed_or_halted(renewal, kind)
        try:
            # One waiter giving up must not take the renewal from the others.
            await asyncio.shield(renewal)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if renewal.cancelled() and waiter is not None and not waiter.cancelling():
                raise NotLoggedIn("logged out while the session was being renewed") from None
            raise
        except (TransportError, ServerError, RateLimited, ProtocolError) as error:
            # The outcome of the login must not be taken for the outcome of the call: that was
            # refused, and had no effect.
            raise SessionEnded(
                f"the broker has ended the session, and logging in again failed: {error}"
            ) from error

    async def _renewed_or_halted(self, renewal: asyncio.Task[None], kind: Kind) -> None:
        """Wait for the end of a renewal. Raises Halted as soon as this kind may not be sent."""
        while not renewal.done():
            self.limiter.state.check(kind)
            if self._halted is None:
                self._halted = asyncio.get_running_loop().create_future()
            await asyncio.wait([renewal, self._halted], return_when=asyncio.FIRST_COMPLETED)

    def _wake_halted(self) -> None:
        """Wake the requests that wait for a connection or a renewal, and that a halt refuses."""
        if self.open_lane is not None:
            self.open_lane.drop_refused()
        if self._halted is not None:
            self._halted.set_result(None)
            self._halted = None

    async def _renew(self) -> None:
        if not self._authenticator.has_totp_secret:
            raise SessionEnded(
                "the broker has ended the session, and without a TOTP secret it cannot be renewed"
            )
        try:
            await self._log_in()
        except LoginFailed as error:
            self._log.error(
                "the login was refused, and is not tried again until login(): %s", error
            )
            raise
        self.renewals += 1

    def _renewal_done(self, renewal: asyncio.Task[None]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            # Every waiter gets the error; asyncio must not log it as never retrieved where no task
            # waits any more.
            renewal.exception()
