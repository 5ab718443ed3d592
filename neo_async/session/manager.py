"""Who is logged in: the TOTP and MPIN steps, renewal, and every authenticated call.

All services above go through `SessionManager.read` and `SessionManager.order`, so that an ended
session and a 429 are dealt with in one place.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import msgspec
import pyotp

from neo_async import logs
from neo_async.config import BreakerConfig, Credentials, Endpoints, PoolLimits, Timeouts
from neo_async.errors import (
    BrokerError,
    ClockSkew,
    LoginFailed,
    NeoError,
    NotLoggedIn,
    NotSent,
    ProtocolError,
    RateLimited,
    ServerError,
    SessionEnded,
    TransportError,
    UsageError,
    WrongMpin,
    WrongTotp,
)
from neo_async.model.address import SOCKET, WEB, address_problem, shown_address, uses_tls
from neo_async.model.answer import Answer
from neo_async.model.session import Session
from neo_async.transport.breaker import Breakers
from neo_async.transport.duplicate_read import with_duplicate
from neo_async.transport.hidden import Hidden, without_frames
from neo_async.transport.http import Download, HttpClient
from neo_async.transport.kinds import Kind
from neo_async.transport.lane import HandOver, Lane
from neo_async.transport.limiter import Limiter, Start
from neo_async.transport.meter import LOGIN, Meter
from neo_async.transport.reading import AT_ONCE, read_answer, read_now
from neo_async.transport.redaction import Secrets
from neo_async.transport.tls import trusting
from neo_async.transport.trading_state import TradingState
from neo_async.wire.endpoints import LOGIN_PATH, VALIDATE_PATH, Auth, Endpoint
from neo_async.wire.forms import FORM_CONTENT_TYPE, encode_form
from neo_async.wire.login import (
    LoginAnswer,
    LoginForm,
    ValidateForm,
    header_problem,
    read_login,
)

log = logging.getLogger(logs.SESSION)

T = TypeVar("T")

FIN_KEY = "neotradeapi"
TOTP_STEP = 30

BETWEEN_LOGINS = 300.0
"""Seconds in which no login is made for a call that was refused after the last one, too: what it
lacks is something else, such as a permission."""

_CODE = re.compile(r"[0-9]{6}")
DEFAULT_FEED = "wss://sfeed.kotaksecurities.com/apifeed"


class SessionManager:
    """Logs in, renews once for all when the broker ends the session, and carries the calls."""

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
        self._credentials = credentials
        self._endpoints = endpoints
        self._limiter = limiter
        limiter.patience = (timeouts.order, timeouts.order, timeouts.order, timeouts.read)
        self._timeouts = timeouts
        self._pool = pool
        self._clock = clock
        self._tls = trusting(endpoints.ca_file)
        self.breakers = Breakers(breaker)
        self.meter = Meter()
        self._http = HttpClient(
            connect_timeout=timeouts.connect,
            tls=self._tls,
            breakers=self.breakers,
            meter=self.meter,
            insecure=endpoints.insecure,
        )
        self._lane: Lane | None = None
        self._lane_server = ""
        self._session: Session | None = None
        self._heads: dict[str, Hidden[bytes]] = {}
        self._renewal: asyncio.Task[None] | None = None
        self._refusing: asyncio.Future[None] | None = None
        """Done when the requests that wait for a renewal have to check the trading state."""
        limiter.state.on_halt(self._wake_refused)
        self._used_code = ""
        self._login_refusal: LoginFailed | None = None
        """What the broker said to the credentials: they are not sent again unasked."""
        self._refused_paths: set[str] = set()
        """Of calls that were told that the present session has ended."""
        self._unhelped_paths: dict[str, float] = {}
        """Of calls that were told so after a new login, too, and when, on the loop's clock."""
        self.logged_in_at = 0.0
        """Unix seconds of the last login; 0 before the first."""
        self.renewals = 0
        """Times the session was renewed because the broker had ended it."""

    @property
    def current(self) -> Session:
        if self._session is None:
            raise NotLoggedIn("not logged in: use `async with NeoClient(...)` or await login()")
        return self._session

    @property
    def is_open(self) -> bool:
        """Whether somebody is logged in."""
        return self._session is not None

    @property
    def is_throttled(self) -> bool:
        """Whether a request waits for the speed limit."""
        return self._limiter.waiting > 0

    @property
    def is_sending(self) -> bool:
        """Whether an order request may be on its way."""
        return self._lane is not None and self._lane.is_busy

    @property
    def is_renewing(self) -> bool:
        """Whether a login is being made because the broker has ended the one before."""
        return self._renewal is not None

    @property
    def timeouts(self) -> Timeouts:
        return self._timeouts

    @property
    def lane(self) -> Lane:
        if self._lane is None:
            raise NotLoggedIn("the order lane is not open: log in first")
        return self._lane

    async def login(self, totp: str | None = None) -> Session:
        """Log in with a code made from the secret, or with the one handed in, and warm the lane.

        A code made from the secret may have been used up by an earlier process: when the broker
        refuses it, the next one is tried, once, after up to 30 s; also when the broker ends the
        login between its two steps, as at midnight.

        Raises WrongTotp, WrongMpin or ClockSkew, LoginFailed for what else the broker finds wrong,
        and TransportError when it cannot be reached. Credentials that were refused are not sent
        again until this is called again.
        """
        self._login_refusal = None
        code = None if totp is None else Hidden(totp)
        del totp  # tracebacks may show local variables
        return await self._log_in(code)

    async def _log_in(self, code: Hidden[str] | None = None) -> Session:
        try:
            trade = await self._both_steps(code)
        except LoginFailed as error:
            is_of_server = error.status == 404  # no broker has judged the credentials
            is_of_code = code is not None and isinstance(error, (WrongTotp, ClockSkew))
            if not is_of_server and not is_of_code:
                self._login_refusal = error
            raise
        if problem := trade.problem:
            raise LoginFailed(f"the answer to the login cannot be used: {problem}")
        session = self._session_of(trade)
        await self._take_up(session)
        log.info("logged in as %s at %s", session.ucc, session.base_url)
        return session

    def _session_of(self, trade: LoginAnswer) -> Session:
        """Raises LoginFailed when the answer leads to an address that no secret may be sent to."""
        endpoints = self._endpoints
        base = (endpoints.base or trade.baseUrl or endpoints.login).rstrip("/")
        self._check_given("baseUrl", base, WEB, is_own=bool(endpoints.base or not trade.baseUrl))
        feed = _websocket(endpoints.feed or trade.feedUrl or DEFAULT_FEED)
        self._check_given("feedUrl", feed, SOCKET, is_own=bool(endpoints.feed))
        realtime = _websocket(endpoints.realtime or trade.rtUrl or _same_host(base, "/realtime"))
        is_own = bool(endpoints.realtime or not trade.rtUrl)
        self._check_given("rtUrl", realtime, SOCKET, is_own=is_own)
        return Session(
            token=trade.token,
            sid=trade.sid,
            base_url=base,
            feed_url=feed,
            realtime_url=realtime,
            ucc=trade.ucc or self._credentials.ucc,
            data_center=trade.dataCenter or "",
        )

    def _check_given(
        self, name: str, address: str, schemes: tuple[str, ...], *, is_own: bool
    ) -> None:
        """Raises LoginFailed. An address that `is_own` was set by the user, or follows from one."""
        problem = address_problem(
            address,
            schemes=schemes,
            tls_only=uses_tls(self._endpoints.login) and not is_own,
            insecure=self._endpoints.insecure,
            is_base=schemes is WEB,
        )
        if problem:
            where = shown_address(address)
            raise LoginFailed(f"the answer to the login has {name}={where}: {problem}")

    async def resume(self, session: Session) -> None:
        """Take up a login that `login` returned earlier, maybe in another process, and warm the
        lane. Whether the broker has ended it meanwhile, the first call tells and puts right.

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
                insecure=self._endpoints.insecure,
                is_base=name == "base_url",
            )
            if problem:
                raise UsageError(f"{name}={shown_address(address)} of the session: {problem}")
        await self._take_up(session)

    async def _take_up(self, session: Session) -> None:
        await self._open_lane(session.base_url)
        self._heads.clear()
        self._refused_paths.clear()
        self._session = session
        self.logged_in_at = self._clock()

    async def logout(self) -> None:
        """Forget the login and close every connection. The broker has no call for it: its own
        client only forgets, too."""
        self._session = None
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._lane is not None:
            await self._lane.close()
            self._lane = None
            self._lane_server = ""
        await self._http.close()

    @property
    def trading_state(self) -> TradingState:
        return self._limiter.state

    @property
    def tls(self) -> ssl.SSLContext | None:
        """Whom to trust; None for the system's authorities."""
        return self._tls

    def _wake_refused(self) -> None:
        """Wake the requests that wait for a connection or a renewal, and that a halt refuses."""
        if self._lane is not None:
            self._lane.drop_refused()
        if self._refusing is not None:
            self._refusing.set_result(None)
            self._refusing = None

    async def renew(self, ended: Session, *, kind: Kind = Kind.READ) -> None:
        """Log in again, once for all callers that found the same session ended. `kind` is what the
        login is wanted for.

        Raises LoginFailed when the broker refuses the login, or has refused one before and `login`
        was not called since, and SessionEnded when it cannot be made: without a TOTP secret, or
        because network or broker failed; and Halted.
        """
        if self._session is not ended:
            return  # somebody else has renewed it already
        if self._renewal is None:
            if self._login_refusal is not None:
                raise self._login_refusal.with_traceback(None)
            log.info("the broker has ended the session: logging in again")
            self._renewal = asyncio.create_task(self._renew(), name="session renewal")
            self._renewal.add_done_callback(self._renewal_done)
        renewal = self._renewal
        await self._until_renewed(renewal, kind)
        try:
            # One waiter giving up must not take the renewal from the others.
            await asyncio.shield(renewal)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if renewal.cancelled() and waiter is not None and not waiter.cancelling():
                raise NotLoggedIn("logged out while the session was being renewed") from None
            raise
        except (TransportError, ServerError, RateLimited, ProtocolError) as error:
            # What became of the login must not be taken for what became of the call: that was
            # refused, and had no effect.
            raise SessionEnded(
                f"the broker has ended the session, and logging in again failed: {error}"
            ) from error

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
        timeouts = self._timeouts

        async def send(session: Session) -> Answer:
            url = session.base_url + endpoint.path + suffix
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
                return await ask(await self._started())

            first = ask(await self._started())
            if timeouts.duplicate_read_after is None:
                return await first
            return await with_duplicate(
                first, ask_again, delay=timeouts.duplicate_read_after, timeout=timeouts.read
            )

        return await self._call(endpoint, send, decode, timeouts.read)

    async def read_open(self, endpoint: Endpoint, decode: Callable[[Answer], T]) -> T:
        """Make a call that needs no login; before one, at the host that logins go to."""
        if self.is_open:
            return await self.read(endpoint, decode)
        root = (self._endpoints.base or self._endpoints.login).rstrip("/")
        start = await self._started()
        answer = await self._http.request(
            endpoint.method,
            root + endpoint.path,
            headers=self._access_headers(),
            timeout=self._timeouts.read,
            start=start,
        )
        return await self._decoded(Kind.READ, answer, decode)

    async def _started(self) -> Start:
        """Wait until a read may start."""
        return await Start(self._limiter, Kind.READ).take()

    async def _decoded(self, kind: int, answer: Answer, decode: Callable[[Answer], T]) -> T:
        if len(answer.body) <= AT_ONCE:
            return self._decoded_now(kind, answer, decode)
        began = time.perf_counter()
        try:
            result = await read_answer(answer, decode)
        except NeoError as error:
            self.secrets().scrub_error(error)
            raise
        self.meter.answered(kind, answer.first_byte, time.perf_counter() - began)
        return result

    def _decoded_now(self, kind: int, answer: Answer, decode: Callable[[Answer], T]) -> T:
        """As `_decoded`, without a coroutine: the way of every order's answer."""
        began = time.perf_counter()
        try:
            result = read_now(answer, decode)
        except NeoError as error:
            # It keeps the broker's words, and those may repeat what we have sent.
            self.secrets().scrub_error(error)
            raise
        self.meter.answered(kind, answer.first_byte, time.perf_counter() - began)
        return result

    def secrets(self) -> Secrets:
        """What no error about an answer or a message of the broker may repeat."""
        credentials, session = self._credentials, self._session
        return Secrets(
            credentials.consumer_key,
            credentials.mobile_number,
            credentials.mobile_number.removeprefix("+91"),
            credentials.mpin,
            credentials.totp_secret,
            self._used_code,
            *(() if session is None else (session.token, session.sid)),
        )

    @contextlib.asynccontextmanager
    async def download(self, url: str) -> AsyncIterator[Download]:
        """Get a public file from an address that the broker gave; see HttpClient.download. What
        the caller makes of it belongs into the block: the address may repeat what was sent to the
        broker, and errors of the block show no secret.

        Raises ProtocolError when the address is none that a client may connect to, such as one
        without TLS from a broker that was asked over TLS.
        """
        endpoints, session = self._endpoints, self._session
        root = (endpoints.base or endpoints.login) if session is None else session.base_url
        problem = address_problem(url, tls_only=uses_tls(root), insecure=endpoints.insecure)
        with self.secrets().kept_out_of_errors():
            if problem:
                raise ProtocolError(f"the broker offers a file at {shown_address(url)}: {problem}")
            async with self._http.download(
                url, timeout=self._timeouts.download, between=self._timeouts.read
            ) as file:
                yield file

    @property
    def is_order_breaker_closed(self) -> bool:
        """Whether the server of orders is taken to be there."""
        return self._lane is None or self._lane.breaker.is_closed

    async def check_orders(self, kind: Kind) -> None:
        """Raises BreakerOpen when an order request would fail at once; see Lane.check."""
        if self._lane is not None:
            await self._lane.check(kind)

    def order(
        self,
        kind: Kind,
        endpoint: Endpoint,
        form: object,
        decode: Callable[[Answer], T],
        record: HandOver | None = None,
    ) -> Awaitable[T]:
        """Make a call on the order lane. Raises NotSent, AnswerLost, RateLimited, or what `decode`
        makes of the answer. `record` is marked when the bytes are handed to a socket: a caller that
        is cancelled learns from it whether the request may have had an effect."""
        body = encode_form(form)

        def send(session: Session) -> Awaitable[Answer]:
            head = self._heads.get(endpoint.name) or self._new_head(endpoint, session)
            data = Hidden(b"%b%d\r\n\r\n%b" % (head.value, len(body), body))
            return self.lane.request(kind, data, self._timeouts.order, record)

        return self._call(endpoint, send, decode, self._timeouts.order, kind=kind)

    async def _call(
        self,
        endpoint: Endpoint,
        send: Callable[[Session], Awaitable[Answer]],
        decode: Callable[[Answer], T],
        patience: float,
        *,
        kind: Kind = Kind.READ,
    ) -> T:
        """Send and read; after an ended session or a 429 send once more. Neither took effect, but
        that is certain of the first only: of an order that got a 429 nobody says that nothing was
        sent."""
        path = endpoint.path
        renewed, throttled = False, None
        while True:
            session = self.current
            if (
                self._renewal is not None
                and path in self._refused_paths
                and kind is not Kind.CANCEL
            ):
                # Sent now it would be refused, and take the room that the login waits for. Others
                # go out: the session may have ended for that call only.
                await self.renew(session, kind=kind)
                session = self.current
            try:
                answer = await send(session)
            except (NotSent, RateLimited) as error:
                if throttled is not None and kind is not Kind.READ:
                    raise throttled from error
                raise
            try:
                if len(answer.body) <= AT_ONCE:
                    result = self._decoded_now(kind, answer, decode)
                else:
                    result = await self._decoded(kind, answer, decode)
            except SessionEnded:
                if not self._is_helped_by_login(endpoint, session, renewed=renewed):
                    raise
                renewed = True
                self.meter.retries += 1
                await self.renew(session, kind=kind)
            except RateLimited as refusal:
                throttled = refusal
                patience -= self._limiter.pause(refusal.retry_after, kind)
                if patience < 0:
                    raise
                self.meter.retries += 1
            else:
                self._limiter.succeeded()
                if self._unhelped_paths:
                    self._unhelped_paths.pop(path, None)
                return result

    def _is_helped_by_login(self, endpoint: Endpoint, session: Session, *, renewed: bool) -> bool:
        """Whether a call that was told that `session` has ended is worth another try, after a new
        login where there is none yet. `renewed` says whether this was that other try."""
        if endpoint.auth is Auth.ACCESS:
            return False  # what carries no login is not refused for want of one
        now = asyncio.get_running_loop().time()
        if renewed:
            self._unhelped_paths[endpoint.path] = now
            return False
        if session is not self._session:
            return True
        unhelped_at = self._unhelped_paths.get(endpoint.path)
        if unhelped_at is not None and now < unhelped_at + BETWEEN_LOGINS:
            return False
        self._refused_paths.add(endpoint.path)
        return True

    def __repr__(self) -> str:
        if self._session is None:
            return "<SessionManager not logged in>"
        who = f"{self._session.ucc} at {self._session.base_url}"
        return f"<SessionManager {who}, {self._lane!r}, {self.renewals} renewals>"

    # --- login --------------------------------------------------------------------------------

    async def _both_steps(self, totp: Hidden[str] | None) -> LoginAnswer:
        """The trade token, or the answer of a step that has a `problem`. When the broker has ended
        the login between its two steps, as it does with every session at midnight, the login is
        begun again, once."""
        view = await self._first_step_or_next_code(totp)
        if view.problem:
            return view
        try:
            return await self._second_step(view)
        except LoginFailed as error:
            # Sent were the MPIN, whose refusal is a WrongMpin, and what the first step gave.
            if totp is not None or "TOTP" not in error.text.upper():
                raise
            log.warning(
                "%s: the first step counts no more at the second; logging in once more, in up to "
                "%d s",
                error.text,
                TOTP_STEP,
            )
        view = await self._first_step(None)
        return view if view.problem else await self._second_step(view)

    async def _first_step_or_next_code(self, totp: Hidden[str] | None) -> LoginAnswer:
        try:
            return await self._first_step(totp)
        except WrongTotp as error:
            if totp is not None:
                raise
            # Codes work once, and an earlier process of this account may have used this one.
            log.warning("%s; trying the next code, once, in up to %d s", error.text, TOTP_STEP)
        return await self._first_step(None)

    async def _first_step(self, totp: Hidden[str] | None) -> LoginAnswer:
        code = await self._next_code() if totp is None else totp
        if not _CODE.fullmatch(code.value):
            raise UsageError("a TOTP code is six digits")
        if code.value == self._used_code:
            raise UsageError("this TOTP code was used already: wait for the next one")
        self._used_code = code.value
        form = LoginForm(
            mobileNumber=self._credentials.mobile_number, ucc=self._credentials.ucc, totp=code.value
        )
        answer = await self._login_call(LOGIN_PATH, form, Hidden({}))
        if answer.status == 404:  # whatever its body: this server is no broker
            where = self._endpoints.login
            raise LoginFailed(f"{where} knows no {LOGIN_PATH}: check the login URL", status=404)
        try:
            return await self._decoded(LOGIN, answer, read_login)
        except (ServerError, RateLimited):
            raise
        except BrokerError as error:
            skew = self._skew(answer)
            if abs(skew) > TOTP_STEP:
                raise ClockSkew(skew, code=error.code, status=error.status) from error
            if "TOTP" in error.text.upper() or error.status == 401 or error.code == 401:
                raise WrongTotp(
                    f"{error.text.rstrip('.')}: check TOTP secret or code (each code works once), "
                    "UCC, mobile number and consumer key",
                    code=error.code,
                    status=error.status,
                    body=error.body,
                ) from error
            raise _as(LoginFailed, error) from error

    async def _second_step(self, view: LoginAnswer) -> LoginAnswer:
        answer = await self._login_call(
            VALIDATE_PATH,
            ValidateForm(mpin=self._credentials.mpin),
            Hidden({"sid": view.sid, "Auth": view.token}),
        )
        try:
            return await self._decoded(LOGIN, answer, read_login)
        except (ServerError, RateLimited):
            raise
        except BrokerError as error:
            kind = WrongMpin if "MPIN" in error.text.upper() else LoginFailed
            raise _as(kind, error) from error

    async def _login_call(self, path: str, form: object, extra: Hidden[dict[str, str]]) -> Answer:
        # Everything else waits for a login that is made because a session ended, cancels too.
        start = await Start(self._limiter, Kind.CANCEL, first=True).take()
        return await self._http.request(
            "POST",
            self._endpoints.login.rstrip("/") + path,
            headers={
                "Authorization": self._credentials.consumer_key,
                "neo-fin-key": FIN_KEY,
                "Content-Type": "application/json",
                "accept": "application/json",
                **extra.value,
            },
            body=msgspec.json.encode(form),
            timeout=self._timeouts.login,
            kind=LOGIN,
            start=start,
        )

    async def _next_code(self) -> Hidden[str]:
        """A TOTP code that was not used before: at most one per step of 30 s."""
        if not self._credentials.totp_secret:
            raise UsageError("no TOTP secret in the credentials: hand a code to login(totp=…)")
        totp = Hidden(_authenticator(Hidden(self._credentials.totp_secret)))
        code = Hidden(totp.value.at(int(self._clock())))
        while code.value == self._used_code:
            wait = TOTP_STEP - self._clock() % TOTP_STEP
            log.info("waiting %.0f s for a TOTP code that was not used yet", wait)
            await asyncio.sleep(wait)
            code = Hidden(totp.value.at(int(self._clock())))
        return code

    def _skew(self, answer: Answer) -> float:
        """Seconds by which our clock is ahead of the broker's, as its Date header tells it."""
        try:
            theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return 0.0
        return self._clock() - theirs

    async def _until_renewed(self, renewal: asyncio.Task[None], kind: Kind) -> None:
        """Wait for its end, as long as this kind is not refused meanwhile."""
        while not renewal.done():
            if (error := self._limiter.state.refusal(kind)) is not None:
                raise error
            if self._refusing is None:
                self._refusing = asyncio.get_running_loop().create_future()
            await asyncio.wait([renewal, self._refusing], return_when=asyncio.FIRST_COMPLETED)

    async def _renew(self) -> None:
        if not self._credentials.totp_secret:
            raise SessionEnded(
                "the broker has ended the session, and without a TOTP secret it cannot be renewed"
            )
        try:
            await self._log_in()
        except LoginFailed as error:
            log.error("the login was refused, and is not tried again until login(): %s", error)
            raise
        self.renewals += 1

    def _renewal_done(self, renewal: asyncio.Task[None]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # every waiter has it; nobody waiting is no reason to complain

    async def _open_lane(self, base: str) -> None:
        """Warm connections to the server of `base`; those to another server are let go."""
        parts = urlsplit(base)
        server = f"{parts.scheme}://{parts.netloc}"
        if server == self._lane_server:
            return
        lane = Lane(
            server,
            self._limiter,
            self._pool,
            connect_timeout=self._timeouts.connect,
            tls=self._tls,
            breakers=self.breakers,
            meter=self.meter,
        )
        await lane.open()
        former, self._lane, self._lane_server = self._lane, lane, server
        if former is not None:
            await former.close()

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
            headers["Authorization"] = self._credentials.consumer_key
        return headers

    def _access_headers(self) -> dict[str, str]:
        return {"Authorization": self._credentials.consumer_key, "accept": "application/json"}

    def _new_head(self, endpoint: Endpoint, session: Session) -> Hidden[bytes]:
        """Everything of an order request up to the value of Content-Length: the same for every
        order of a session, so written once."""
        path = urlsplit(session.base_url).path + endpoint.path
        lines = Hidden(
            [
                f"{endpoint.method} {path} HTTP/1.1",
                f"Host: {self.lane.host_header}",
                *(f"{k}: {v}" for k, v in self._headers(endpoint.auth, session).items()),
            ]
        )
        head = Hidden(("\r\n".join(lines.value) + "\r\nContent-Length: ").encode("ascii"))
        self._heads[endpoint.name] = head
        return head


def _authenticator(secret: Hidden[str]) -> pyotp.TOTP:
    """Raises UsageError when the secret is none."""
    text = Hidden("".join(secret.value.split()).replace("-", "").rstrip("=").upper())
    try:
        key = Hidden(base64.b32decode(text.value + "=" * (-len(text.value) % 8)))
    except (binascii.Error, ValueError) as error:
        # The frames of the decoder hold the secret in local variables.
        without_frames(error)
        raise UsageError(
            "totp_secret is not base32 (letters A-Z and digits 2-7): copy it from the page that "
            "showed the QR code"
        ) from None
    # pyotp insists on 112 bits, while authenticator secrets of 80 are common and not the user's
    # choice. HMAC fills short keys up with zeros itself, so these change no code.
    return pyotp.TOTP(base64.b32encode(key.value.ljust(20, b"\0")).decode())


def _as(kind: type[BrokerError], error: BrokerError) -> BrokerError:
    return kind(error.text, code=error.code, status=error.status, body=error.body)


def _websocket(url: str) -> str:
    """The broker gives websocket addresses with http schemes, or with none."""
    if "://" not in url:
        return f"wss://{url}"
    scheme, _, rest = url.partition("://")
    return f"{ {'https': 'wss', 'http': 'ws'}.get(scheme, scheme) }://{rest}"


def _same_host(url: str, path: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
