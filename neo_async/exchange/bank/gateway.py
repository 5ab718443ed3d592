"""The gateway before the bank's services: tokens, API keys and plan limits."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections import deque
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qs

from neo_async.base.india import DAY_SECONDS, IST_SECONDS
from neo_async.exchange.bank.settings import BankSettings
from neo_async.exchange.bank.types import Client, Refused
from neo_async.exchange.rest.replies import Reply, json
from neo_async.exchange.rest.services import Call

_WINDOW: Final = 1.0
"""Seconds that India is ahead."""


class Throttled(Exception):
    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the plan is used up for {retry_after} s")
        self.retry_after = retry_after


class Gateway:
    def __init__(self, clients: Iterable[Client], settings: BankSettings) -> None:
        self._clients = {client.client_id: client for client in clients}
        self._settings = settings
        self._tokens: dict[str, tuple[Client, float]] = {}
        """Token to whose it is and until when."""
        self._plans = {client_id: _Plan(settings) for client_id in self._clients}

    # --- tokens ---------------------------------------------------------------------------------

    def grant(self, call: Call) -> Reply:
        """Grant a token (RFC 6749, section 4.4) for the credentials of a client, in the body or as
        Basic authorization."""
        form = {name: values[0] for name, values in parse_qs(call.body.decode("latin-1")).items()}
        if call.method != "POST":
            return _oauth_error(405, "invalid_request", "the token endpoint takes POST")
        if form.get("grant_type") != "client_credentials":
            text = "grant_type must be client_credentials"
            return _oauth_error(400, "unsupported_grant_type", text)
        client_id, secret = _basic(call.headers.get("Authorization", "")) or (
            form.get("client_id", ""),
            form.get("client_secret", ""),
        )
        client = self._clients.get(client_id)
        if client is None or not hmac.compare_digest(
            client.client_secret.encode(), secret.encode()
        ):
            return _oauth_error(401, "invalid_client", "client_id or client_secret is wrong")
        self._forget_expired(call.time)
        token = secrets.token_hex(24)
        seconds = self._settings.token_seconds
        self._tokens[token] = (client, call.time + seconds)
        content = {"access_token": token, "token_type": "Bearer", "expires_in": seconds}
        return json({**content, "scope": "oob"})

    def end_tokens(self) -> None:
        self._tokens.clear()

    def end_token(self, call: Call) -> None:
        """End the token of a call, if it has one."""
        self._tokens.pop(_bearer(call), None)

    def _forget_expired(self, now: float) -> None:
        expired = [token for token, (_, until) in self._tokens.items() if until <= now]
        for token in expired:
            del self._tokens[token]

    # --- calls ----------------------------------------------------------------------------------

    def admit(self, call: Call) -> Client:
        """Return the client of a call. Raises Refused without a valid token or key, and
        Throttled."""
        client = self._client(call)
        if client is None:
            raise Refused("VA0401", "token missing, expired or unknown", status=401)
        self._plans[client.client_id].admit(call.wall_time)
        return client

    def _client(self, call: Call) -> Client | None:
        if "apikey" in call.query:
            return self._clients.get(call.query["apikey"])
        client, until = self._tokens.get(_bearer(call), (None, 0.0))
        return client if call.time < until else None


class _Plan:
    """Calls of one client. Refused ones do not count."""

    def __init__(self, settings: BankSettings) -> None:
        self._per_second = settings.requests_per_second
        self._per_day = settings.requests_per_day
        self._recent: deque[float] = deque()
        self._day = 0
        self._today = 0

    def admit(self, now: float) -> None:
        day, into_day = divmod(int(now) + IST_SECONDS, DAY_SECONDS)
        if day != self._day:
            self._day, self._today = day, 0
        if self._per_day is not None and self._today >= self._per_day:
            raise Throttled(DAY_SECONDS - into_day)
        while self._recent and self._recent[0] <= now - _WINDOW:
            self._recent.popleft()
        if self._per_second is not None:
            if len(self._recent) >= self._per_second:
                raise Throttled(1)
            self._recent.append(now)
        self._today += 1


def _bearer(call: Call) -> str:
    scheme, _, token = call.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _basic(authorization: str) -> tuple[str, str] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password


def _oauth_error(status: int, error: str, text: str) -> Reply:
    return json({"error": error, "error_description": text}, status=status)
