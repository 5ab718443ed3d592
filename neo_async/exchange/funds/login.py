"""Kite's login: tokens of an application, and which of them are valid.

A browser logs in and is sent to the application with a request token, which the application turns
into an access token; that ends at six in the morning in India. Pure but for the random tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import secrets
from datetime import datetime, timedelta

import msgspec

from neo_async.base.india import IST
from neo_async.exchange.funds.types import FundRefusal

_REQUEST_TOKEN_S = 300
"""Seconds for which a request token can be used."""
_ENDS_AT_HOUR = 6


class KiteApplication(msgspec.Struct, frozen=True, kw_only=True):
    """The made-up application, and the investor who uses it."""

    api_key: str
    api_secret: str
    access_token: str
    """Access token that never ends, for callers who do not want to log in first."""
    user_id: str

    def __repr__(self) -> str:
        return f"KiteApplication(user_id={self.user_id!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        # Structs show rich every field, in tracebacks with locals for instance.
        return [("user_id", self.user_id)]


def make_application(seed: int, key: str = "") -> KiteApplication:
    """Return the application of a seed and key, the same one each time."""
    chance = random.Random(f"kite {seed} {key}" if key else f"kite {seed}")
    return KiteApplication(
        api_key="".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=16)),
        api_secret="".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=32)),
        access_token="".join(chance.choices("ABCDEFGHIJKLMNPQRSTUVWXYZabcdefghij0123456789", k=32)),
        user_id="ZV" + "".join(chance.choices("0123456789", k=4)),
    )


class KiteLogins:
    def __init__(self, application: KiteApplication) -> None:
        self.application = application
        self._request_tokens: dict[str, float] = {}
        """Request tokens, and the time at which each ends."""
        self._access_tokens: dict[str, float] = {}
        self._refresh_tokens: set[str] = set()

    def request_token(self, api_key: str, now: float) -> str:
        """Return a request token, as the login page gives it to a browser. Raises FundRefusal."""
        self._check_key(api_key)
        token = _token()
        self._request_tokens[token] = now + _REQUEST_TOKEN_S
        return token

    def open(self, api_key: str, request_token: str, checksum: str, now: float) -> dict[str, str]:
        """Turn a request token, once, into the tokens of a session. Raises FundRefusal."""
        self._check(api_key, request_token, checksum)
        if now >= self._request_tokens.pop(request_token, 0.0):
            raise _refusal("Token is invalid or has expired.")
        return self._new_session(now)

    def renew(self, api_key: str, refresh_token: str, checksum: str, now: float) -> dict[str, str]:
        """Renew an access token. Raises FundRefusal."""
        self._check(api_key, refresh_token, checksum)
        if refresh_token not in self._refresh_tokens:
            raise _refusal("Token is invalid or has expired.")
        self._refresh_tokens.discard(refresh_token)
        return self._new_session(now)

    def end(self, api_key: str, token: str) -> None:
        """End a session, or the right to renew one. Raises FundRefusal."""
        self._check_key(api_key)
        self._access_tokens.pop(token, None)
        self._refresh_tokens.discard(token)

    def authorise(self, authorization: str, now: float) -> None:
        """Check an Authorization header, `token <api_key>:<access_token>`. Raises FundRefusal."""
        scheme, _, pair = authorization.partition(" ")
        api_key, _, token = pair.partition(":")
        known = self.application
        is_standing = hmac.compare_digest(token.encode(), known.access_token.encode())
        holds = is_standing or now < self._access_tokens.get(token, 0.0)
        if scheme != "token" or api_key != known.api_key or not holds:
            raise _refusal("Incorrect `api_key` or `access_token`.")

    def _new_session(self, now: float) -> dict[str, str]:
        access_token, refresh_token = _token(), _token()
        self._access_tokens[access_token] = _next_morning(now)
        self._refresh_tokens.add(refresh_token)
        return {"access_token": access_token, "refresh_token": refresh_token}

    def _check_key(self, api_key: str) -> None:
        if api_key != self.application.api_key:
            raise _refusal("Invalid `api_key`.")

    def _check(self, api_key: str, token: str, checksum: str) -> None:
        self._check_key(api_key)
        text = api_key + token + self.application.api_secret
        right = hashlib.sha256(text.encode()).hexdigest()
        if not hmac.compare_digest(checksum.encode(), right.encode()):
            raise _refusal("Invalid `checksum`.")


def _next_morning(now: float) -> float:
    event = datetime.fromtimestamp(now, IST)
    morning = event.replace(hour=_ENDS_AT_HOUR, minute=0, second=0, microsecond=0)
    return (morning if morning > event else morning + timedelta(days=1)).timestamp()


def _token() -> str:
    return secrets.token_urlsafe(24)


def _refusal(text: str) -> FundRefusal:
    return FundRefusal(text, error_type="TokenException", status=403)
