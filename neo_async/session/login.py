"""The two steps of a login: TOTP, then MPIN.

`Authenticator.login` returns a session and installs nothing: what a session replaces is decided by
its caller, SessionManager.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
import pyotp

from neo_async.base import logs
from neo_async.base.logs import logger_of
from neo_async.config import Credentials, Endpoints
from neo_async.errors import (
    BrokerError,
    ClockSkew,
    LoginFailed,
    RateLimited,
    ServerError,
    UsageError,
    WrongMpin,
    WrongTotp,
)
from neo_async.model.address import SOCKET, WEB, address_problem, shown_address, uses_tls
from neo_async.model.answer import Answer
from neo_async.model.session import Session
from neo_async.transport.hidden import Hidden, without_frames
from neo_async.transport.http import HttpClient
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter
from neo_async.transport.meter import LOGIN
from neo_async.transport.reading import AnswerReader
from neo_async.transport.start import Start
from neo_async.wire.endpoints import LOGIN_PATH, VALIDATE_PATH
from neo_async.wire.login import LoginAnswer, LoginForm, ValidateForm, read_login

FIN_KEY: Final = "neotradeapi"
"""Value of the header `neo-fin-key`, the same for every client."""

TOTP_STEP_SECONDS: Final = 30
"""Time for which one TOTP code is valid."""

DEFAULT_FEED: Final = "wss://sfeed.kotaksecurities.com/apifeed"
"""Address of the market feed where the answer to the login gives none."""

_CODE = re.compile(r"[0-9]{6}")


class Authenticator:
    """Logs one account in. It never sends a TOTP code twice: the broker accepts each one once."""

    def __init__(
        self,
        credentials: Credentials,
        endpoints: Endpoints,
        http: HttpClient,
        limiter: Limiter,
        reader: AnswerReader,
        *,
        timeout: float,
        clock: Callable[[], float],
    ) -> None:
        """`timeout` is in seconds for each step; `clock` gives Unix seconds."""
        self._log = logger_of(logs.SESSION, credentials.ucc)
        self._credentials = credentials
        self._endpoints = endpoints
        self._http = http
        self._limiter = limiter
        self._reader = reader
        self._timeout = timeout
        self._clock = clock
        self.used_code = ""
        """TOTP code sent last; empty before the first login."""
        self.used_step = 0
        """Number of the 30 s, since 1970, in which that code was sent."""
        self.step_used_elsewhere = 0
        """Number of the 30 s whose code another process has sent."""
        self.refusal: LoginFailed | None = None
        """Why the broker refused the credentials; None while it has not. Setting it to
        None sends them again, which may lock the account."""

    @property
    def has_totp_secret(self) -> bool:
        """Whether a login can be made without a code from the user."""
        return bool(self._credentials.totp_secret)

    async def login(self, totp: Hidden[str] | None = None) -> Session:
        """Return a new session, by the code `totp` or by one made from the TOTP secret.

        A code made from the secret that is refused is replaced by the next one, once, after up to
        30 s: an earlier process of this account may have used it.

        Raises WrongTotp, WrongMpin, ClockSkew or LoginFailed when the broker refuses the login,
        LoginFailed also when its answer cannot be used, and TransportError when it cannot be
        reached; UsageError without an account's credentials.
        """
        if not self._credentials.can_log_in:
            raise UsageError("a login needs mobile_number, ucc and mpin beside the consumer key")
        try:
            answer = await self._both_steps(totp)
        except LoginFailed as error:
            is_of_server = error.status == 404  # no broker has checked the credentials
            is_of_code = totp is not None and isinstance(error, (WrongTotp, ClockSkew))
            if not is_of_server and not is_of_code:
                self.refusal = error
            raise
        if problem := answer.problem:
            raise LoginFailed(f"the answer to the login cannot be used: {problem}")
        return self._session_from(answer)

    # --- the two steps ------------------------------------------------------------------------

    async def _both_steps(self, totp: Hidden[str] | None) -> LoginAnswer:
        """Return the answer to the second step, or that to the first one if it has a `problem`.

        The broker ends every session at midnight, a login between its two steps among them: the
        login is then begun again, once.
        """
        view = await self._first_step_or_next_code(totp)
        if view.problem:
            return view
        try:
            return await self._second_step(view)
        except LoginFailed as error:
            # The second step sends the MPIN, whose refusal is a WrongMpin, and the tokens of the
            # first step. A refusal that names the TOTP means that those tokens are void.
            if totp is not None or "TOTP" not in error.text.upper():
                raise
            self._log.warning(
                "%s: the first step was void by the time of the second; logging in once more, "
                "in up to %d s",
                error.text,
                TOTP_STEP_SECONDS,
            )
        view = await self._first_step(None)
        return view if view.problem else await self._second_step(view)

    async def _first_step_or_next_code(self, totp: Hidden[str] | None) -> LoginAnswer:
        """Make the first step, with the next code where one from the secret is refused."""
        try:
            return await self._first_step(totp)
        except WrongTotp as error:
            if totp is not None:
                raise
            # Codes work once, and an earlier process of this account may have used this one.
            self._log.warning(
                "%s; trying the next code, once, in up to %d s", error.text, TOTP_STEP_SECONDS
            )
        return await self._first_step(None)

    async def _first_step(self, totp: Hidden[str] | None) -> LoginAnswer:
        code = await self._next_code() if totp is None else totp
        if not _CODE.fullmatch(code.value):
            raise UsageError("a TOTP code is six digits")
        if code.value == self.used_code:
            raise UsageError("this TOTP code was used already: wait for the next one")
        self.used_code = code.value
        self.used_step = self._step()
        form = LoginForm(
            mobileNumber=self._credentials.mobile_number, ucc=self._credentials.ucc, totp=code.value
        )
        answer = await self._post(LOGIN_PATH, form, Hidden({}))
        if answer.status == 404:  # whatever its body: this server is no broker
            where = self._endpoints.login
            raise LoginFailed(f"{where} has no {LOGIN_PATH}: check the login URL", status=404)
        try:
            return await self._reader.read(LOGIN, answer, read_login)
        except (ServerError, RateLimited):
            raise
        except BrokerError as error:
            skew = self._clock_skew(answer)
            if abs(skew) > TOTP_STEP_SECONDS:
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
        """Exchange the view token of the first step and the MPIN for a trade token."""
        answer = await self._post(
            VALIDATE_PATH,
            ValidateForm(mpin=self._credentials.mpin),
            Hidden({"sid": view.sid, "Auth": view.token}),
        )
        try:
            return await self._reader.read(LOGIN, answer, read_login)
        except (ServerError, RateLimited):
            raise
        except BrokerError as error:
            kind = WrongMpin if "MPIN" in error.text.upper() else LoginFailed
            raise _as(kind, error) from error

    async def _post(self, path: str, form: object, extra: Hidden[dict[str, str]]) -> Answer:
        # A login that replaces an ended session goes first: everything else waits for it, cancels
        # too.
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
            timeout=self._timeout,
            kind=LOGIN,
            start=start,
        )

    # --- codes and clocks ---------------------------------------------------------------------

    async def _next_code(self) -> Hidden[str]:
        """Return a TOTP code that was not used before, waiting for the next step if need be."""
        if not self._credentials.totp_secret:
            raise UsageError("no TOTP secret in the credentials: hand a code to login(totp=…)")
        totp = Hidden(_totp_generator(Hidden(self._credentials.totp_secret)))
        code = Hidden(totp.value.at(int(self._clock())))
        while code.value == self.used_code or self._step() == self.step_used_elsewhere:
            wait = TOTP_STEP_SECONDS - self._clock() % TOTP_STEP_SECONDS
            # Where a code was refused, a warning was logged already.
            is_first = not self.used_code
            self._log.log(
                logging.WARNING if is_first else logging.INFO,
                "the present TOTP code has been used: waiting %.0f s for the next",
                wait,
            )
            await asyncio.sleep(wait)
            code = Hidden(totp.value.at(int(self._clock())))
        return code

    def _step(self) -> int:
        return int(self._clock() // TOTP_STEP_SECONDS)

    def _clock_skew(self, answer: Answer) -> float:
        """Return the seconds by which this machine's clock is ahead of the broker's, by the Date
        header of the answer; 0 without one."""
        try:
            theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return 0.0
        return self._clock() - theirs

    # --- the session in the answer ------------------------------------------------------------

    def _session_from(self, answer: LoginAnswer) -> Session:
        """Return the session that an answer to the second step describes.

        Raises LoginFailed when the answer leads to an address that no secret may be sent to.
        """
        endpoints = self._endpoints
        base = (endpoints.base or answer.baseUrl or endpoints.login).rstrip("/")
        self._check_address("baseUrl", base, WEB, is_own=bool(endpoints.base or not answer.baseUrl))
        feed = _websocket(endpoints.feed or answer.feedUrl or DEFAULT_FEED)
        self._check_address("feedUrl", feed, SOCKET, is_own=bool(endpoints.feed))
        realtime = _websocket(endpoints.realtime or answer.rtUrl or _same_host(base, "/realtime"))
        is_own = bool(endpoints.realtime or not answer.rtUrl)
        self._check_address("rtUrl", realtime, SOCKET, is_own=is_own)
        return Session(
            token=answer.token,
            sid=answer.sid,
            base_url=base,
            feed_url=feed,
            realtime_url=realtime,
            ucc=answer.ucc or self._credentials.ucc,
            data_center=answer.dataCenter or "",
        )

    def _check_address(
        self, name: str, address: str, schemes: tuple[str, ...], *, is_own: bool
    ) -> None:
        """Raise LoginFailed when no secret may be sent to an address. One that `is_own` was set by
        the user, or follows from one that was."""
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


def _totp_generator(secret: Hidden[str]) -> pyotp.TOTP:
    """Return the generator of the codes of a secret. Raises UsageError when it is not base32."""
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
    """Return an address with a websocket scheme: the broker gives http schemes, or none."""
    if "://" not in url:
        return f"wss://{url}"
    scheme, _, rest = url.partition("://")
    return f"{ {'https': 'wss', 'http': 'ws'}.get(scheme, scheme) }://{rest}"


def _same_host(url: str, path: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
