"""The two login steps, and the logins that are valid.

Pure but for the random tokens: every call has its time as an argument, in Unix seconds.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import uuid
from collections.abc import Callable, Iterable

import msgspec
import pyotp

from neo_async.base.india import DAY_SECONDS, midnight
from neo_async.exchange.engine.types import Refusal
from neo_async.exchange.rest.accounts import Account
from neo_async.wire.lenient import UNREADABLE

DATA_CENTER = "E43"

_TOTP_STEP = 30
_LIVE_TRADE_LOGINS = 2
"""Trade logins an account may have at once; one more ends the oldest."""


class LoginRefused(Exception):
    """A login step does not succeed."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class FieldMissing(Exception):
    """A login form lacks a field, or it is blank. `name` is as the broker's message spells it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A pair of token and sid. `is_trade` after the second step, a view login before."""

    account: Account
    token: str
    sid: str
    is_trade: bool
    ends_at: float
    client_ip: str = ""
    """Address that the second step came from."""


class Logins:
    """Checks credentials, issues token pairs, and keeps the valid ones."""

    def __init__(
        self, accounts: Iterable[Account], *, base_url: str, feed_url: str, realtime_url: str
    ) -> None:
        self._accounts = {account.credentials.consumer_key: account for account in accounts}
        self._urls = {"baseUrl": base_url, "feedUrl": feed_url, "rtUrl": realtime_url}
        self._logins: dict[str, Login] = {}
        self._used_steps: dict[str, set[int]] = {ucc.ucc: set() for ucc in self._accounts.values()}
        self._signing_key = secrets.token_bytes(32)
        self.on_end: Callable[[Login], None] = lambda _: None
        """Called with every login that has ended."""

    def account_of(self, authorization: str) -> Account | None:
        """Return the account of an access token, which may come with or without `Bearer `."""
        return self._accounts.get(authorization.removeprefix("Bearer ").strip())

    def login(
        self, authorization: str, body: bytes, now: float, wall_time: float
    ) -> dict[str, object]:
        """Take the first step, the TOTP at `wall_time`; return `data` with a view token."""
        form = _read_form(body, ("mobileNumber", "ucc", "totp"))
        account = self.account_of(authorization)
        if (
            account is None
            or form["ucc"] != account.ucc
            or form["mobileNumber"] != account.credentials.mobile_number
            or not self._accept_code(account, form["totp"], wall_time)
        ):
            raise LoginRefused(401, "Invalid credentials or TOTP.")
        return self._open(account, now, is_trade=False)

    def validate(
        self,
        authorization: str,
        sid: str,
        token: str,
        body: bytes,
        now: float,
        client_ip: str = "",
    ) -> dict[str, object]:
        """Take the second step, the MPIN; return `data` with a trade token and this server's
        addresses."""
        form = _read_form(body, ("mpin",))
        pending = self._find(sid, token, now)
        if (
            pending is None
            or pending.is_trade
            or self.account_of(authorization) is not pending.account
        ):
            raise LoginRefused(401, "Invalid credentials or TOTP.")
        account = pending.account
        if not hmac.compare_digest(form["mpin"].encode(), account.credentials.mpin.encode()):
            raise LoginRefused(401, "Invalid MPIN.")
        data = self._open(account, now, is_trade=True, client_ip=client_ip)
        self._end_surplus(account)
        return data | self._urls

    def authorise(self, sid: str, token: str, now: float) -> Login | None:
        """Return the trade login of this pair; None if there is none, or it has ended. Raises
        Refusal, in the broker's words, for a view login."""
        login = self._find(sid, token, now)
        if login is not None and not login.is_trade:
            # Two blanks: the broker's own spelling.
            raise Refusal(100021, "invalid  access type", http_status=401)
        return login

    def trade_login(self, sid: str, now: float) -> Login | None:
        """Return the trade login of a sid, if there is one and it is valid."""
        login = self._logins.get(sid)
        return login if login is not None and login.is_trade and now < login.ends_at else None

    def end(self, sid: str) -> None:
        login = self._logins.pop(sid, None)
        if login is not None:
            self.on_end(login)

    def end_all(self) -> None:
        """End every login at once."""
        for sid in list(self._logins):
            self.end(sid)

    def end_expired(self, now: float) -> None:
        """End the logins whose time is over, as midnight does."""
        for sid in [sid for sid, login in self._logins.items() if now >= login.ends_at]:
            self.end(sid)

    def _find(self, sid: str, token: str, now: float) -> Login | None:
        login = self._logins.get(sid)
        if login is None or login.token != token:
            return None
        if now >= login.ends_at:
            self.end(sid)
            return None
        return login

    def _accept_code(self, account: Account, code: str, now: float) -> bool:
        """Check a TOTP (RFC 6238) with one step of tolerance either way; no code is accepted
        twice."""
        totp = pyotp.TOTP(account.credentials.totp_secret)
        used = self._used_steps[account.ucc]
        current = int(now) // _TOTP_STEP
        for step in (current, current - 1, current + 1):
            if step in used or not hmac.compare_digest(
                totp.generate_otp(step).encode(), code.encode()
            ):
                continue
            used.add(step)
            used.intersection_update(range(current - 1, current + 2))
            return True
        return False

    def _open(
        self, account: Account, now: float, *, is_trade: bool, client_ip: str = ""
    ) -> dict[str, object]:
        ends_at = _next_midnight(now)
        login = Login(
            account=account,
            token=self._token(account, now, ends_at, is_trade=is_trade),
            sid=str(uuid.uuid4()),
            is_trade=is_trade,
            ends_at=ends_at,
            client_ip=client_ip,
        )
        self.end_expired(now)
        self._logins[login.sid] = login
        return {
            "token": login.token,
            "sid": login.sid,
            "rid": str(uuid.uuid4()),
            "hsServerId": "",
            "isUserPwdExpired": False,
            "ucc": account.ucc,
            "greetingName": account.name,
            "isTrialAccount": False,
            "dataCenter": DATA_CENTER,
            "searchAPIKey": "",
            "derivativesRiskDisclosure": "Risk Disclosure on Derivatives",
            "mfAccess": 1,
            "dataCenterMap": None,
            "dormancyStatus": "A",
            "asbaStatus": "",
            "clientType": "RI",
            "isNRI": False,
            "kId": account.pan,
            "kType": "Trade" if is_trade else "View",
            "status": "success",
            "incRange": 0,
            "incUpdFlag": "",
            "clientGroup": "",
            "kraStatus": "",
            "rcFlag": 0,
        }

    def _end_surplus(self, account: Account) -> None:
        # A dict keeps the order of insertion: the first ones are the oldest.
        live = [
            sid
            for sid, login in self._logins.items()
            if login.is_trade and login.account is account
        ]
        for sid in live[:-_LIVE_TRADE_LOGINS]:
            self.end(sid)

    def _token(self, account: Account, now: float, ends_at: float, *, is_trade: bool) -> str:
        header = {"alg": "HS256", "typ": "JWT"}
        claims = {
            "scope": ["Trade" if is_trade else "View"],
            "exp": int(ends_at),
            "jti": str(uuid.uuid4()),
            "iat": int(now),
            "iss": "login-service",
            "sub": account.user_id,
            "ucc": account.ucc,
            "nap": account.pan,
            "fetchcachingrule": 0,
            "categorisation": "",
        }
        signed = b".".join(_base64(msgspec.json.encode(part)) for part in (header, claims))
        signature = hmac.digest(self._signing_key, signed, "sha256")
        return b".".join((signed, _base64(signature))).decode()


def _read_form(body: bytes, names: Iterable[str]) -> dict[str, str]:
    try:
        content = msgspec.json.decode(body, type=dict[str, object])
    except UNREADABLE:
        raise LoginRefused(422, "Invalid parameters.") from None
    form = {}
    for name in names:
        value = content.get(name)
        if not isinstance(value, str) or not value.strip():
            raise FieldMissing(name[0].upper() + name[1:])
        form[name] = value
    return form


def _next_midnight(now: float) -> float:
    """Return the next midnight in India."""
    return midnight(now) + DAY_SECONDS


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
