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
from neo_async.base.india import in_india
from neo_async.base.logs import logger_of
from neo_async.config import BreakerConfig, Credentials, Endpoints, PoolLimits, Timeouts
from neo_async.errors import (
    LoginFailed,
    NeoError,
    NotLoggedIn,
    ProtocolError,
    RateLimited,
    ServerError,
    SessionEnded,
    TransportError,
    UsageError,
)
from neo_async.model.address import (
    SOCKET,
    WEB,
    address_problem,
    is_on_this_machine,
    shown_address,
)
from neo_async.model.session import Session
from neo_async.session.login import FIN_KEY, Authenticator
from neo_async.session.session_file import SessionFile
from neo_async.session.shared_login import Login, SharedLogin
from neo_async.transport.breaker import Breakers
from neo_async.transport.hidden import Hidden
from neo_async.transport.http import HttpClient
from neo_async.transport.kinds import Kind
from neo_async.transport.lane import Lane
from neo_async.transport.limiter import Limiter
from neo_async.transport.meter import Meter
from neo_async.transport.reading import AnswerReader
from neo_async.transport.redaction import Secrets
from neo_async.transport.start import Start
from neo_async.transport.tls import trusting
from neo_async.wire.endpoints import LIMITS
from neo_async.wire.forms import FORM_CONTENT_TYPE, encode_form
from neo_async.wire.login import header_problem
from neo_async.wire.portfolio import LimitsForm, read_limits


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
        session_file: SessionFile | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`session_file` keeps the login for other processes and for restarts; `clock` gives Unix
        seconds."""
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
        self._shared: SharedLogin | None = None
        if session_file is not None:
            self._shared = SharedLogin(session_file, self._authenticator, self._is_alive, clock)
        self.open_lane: Lane | None = None
        """Order lane of the session; None before login and after logout."""
        self._lane_server = ""
        self._logouts = 0
        """Number of logouts: a login that one of them interrupts is given up."""
        self.session: Session | None = None
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
    def is_paper(self) -> bool:
        """Whether the login and, once there is a session, the trading calls go to a server on this
        machine."""
        return self.endpoints.is_paper and (
            self.session is None or is_on_this_machine(self.session.base_url)
        )

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

    async def login(self, totp: str | None = None, *, fresh: bool = False) -> Session:
        """Log in with a code made from the secret, or with the one given, and warm the lane. With a
        session file, the session in it is taken up instead, unless there is a code, or `fresh`.

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
        return await self._log_in(code, fresh=fresh)

    async def resume(self, session: Session) -> None:
        """Use a session that `login` returned earlier, maybe in another process, and warm the lane.
        If the broker has ended it meanwhile, the first call finds that out and renews it.

        Raises UsageError when it holds what no login answers, or an address that no secret may be
        sent to, and TransportError when its server cannot be reached.
        """
        self._check(session)
        await self._install(session, self._clock(), self._logouts)
        self._announce("resumed the login of", session)

    def _check(self, session: Session) -> None:
        """Raise UsageError when a session holds what no login answers."""
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

    async def logout(self) -> None:
        """Forget the session and close every connection. The broker has no call for a logout: its
        own client only forgets the session, too."""
        self.session = None
        self._logouts += 1
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        await self._close_lane()
        await self.http.close()

    def forget(self) -> None:
        """Remove the login from the session file. Raises OSError."""
        if self._shared is not None:
            self._shared.file.forget()

    async def _log_in(
        self,
        totp: Hidden[str] | None = None,
        *,
        ended: Session | None = None,
        fresh: bool = False,
    ) -> Session:
        """Log in, or take up the session of the file where it is not `ended`."""
        logouts = self._logouts
        if self._shared is None:
            login = Login(await self._authenticator.login(totp), self._clock(), is_new=True)
        else:
            login = await self._shared.login(totp, ended=ended, fresh=fresh)
        session = login.session
        await self._install(session, login.made_at, logouts)
        how = "" if login.is_new else f", by the login of {in_india(login.made_at):%H:%M:%S} IST"
        self._announce("logged in as", session, how)
        return session

    def _announce(self, what: str, session: Session, how: str = "") -> None:
        where = "paper" if self.is_paper else "live"
        self._log.info("%s %s at %s: %s%s", what, session.ucc, session.base_url, where, how)

    async def _is_alive(self, session: Session) -> bool:
        """Return whether the broker accepts a session that was kept; also where its server gives
        no usable answer. One that cannot be reached may have moved: a login gives its address."""
        try:
            self._check(session)
            start = await Start(self.limiter, Kind.CANCEL, first=True).take()
            answer = await self.http.request(
                LIMITS.method,
                session.base_url + LIMITS.path,
                headers={
                    "accept": "application/json",
                    "Sid": session.sid,
                    "Auth": session.token,
                    "neo-fin-key": FIN_KEY,
                    "Content-Type": FORM_CONTENT_TYPE,
                },
                body=encode_form(LimitsForm()),
                timeout=self.timeouts.read,
                start=start,
            )
            await self.reader.read(Kind.READ, answer, read_limits)
        except (SessionEnded, TransportError, UsageError):
            return False
        except NeoError as error:
            self._log.info("whether the session that was kept has ended is not known: %s", error)
        return True

    async def _install(self, session: Session, made_at: float, logouts: int) -> None:
        """Make a session the current one, once there is an order lane to its server. `logouts` is
        their number when its login began."""
        self._check_not_logged_out(logouts)
        await self._open_lane(session.base_url, logouts)
        self.session = session
        self.logged_in_at = made_at

    def _check_not_logged_out(self, logouts: int) -> None:
        if logouts != self._logouts:
            raise NotLoggedIn("logged out while logging in")

    async def _close_lane(self) -> None:
        """Close the order lane. A login that is made meanwhile opens another one."""
        lane, self._lane_server = self.open_lane, ""
        if lane is not None:
            await lane.close()
            if self.open_lane is lane:
                self.open_lane = None

    async def _open_lane(self, base: str, logouts: int) -> None:
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
        try:
            self._check_not_logged_out(logouts)
        except NotLoggedIn:
            await lane.close()
            raise
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
            self._renewal = asyncio.create_task(self._renew(ended), name="session renewal")
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

    async def _renew(self, ended: Session) -> None:
        if self._shared is None and not self._authenticator.has_totp_secret:
            raise SessionEnded(
                "the broker has ended the session, and without a TOTP secret it cannot be renewed"
            )
        try:
            await self._log_in(ended=ended)
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
