"""Kite's login: from the website's request token to the access token that calls need.

    session = KiteSession(api_key, api_secret)
    print(session.login_url)                    # open it in a browser, and log in
    login = await session.open(redirected_url)  # the address that the browser was sent to
    async with KiteMutualFunds(api_key, login.access_token) as kite: ...

The login flow is not in the mutual-fund document; its facts are from the official client.
"""

from __future__ import annotations

import hashlib
from urllib.parse import parse_qs, urlencode, urlsplit

from neo_async.config import KiteEndpoints, Timeouts
from neo_async.errors import LoginFailed, SessionEnded, UsageError
from neo_async.kite.model import KiteLogin
from neo_async.kite.wire import (
    FORM_HEADERS,
    VERSION_HEADERS,
    check_success,
    form_body,
    read_login,
)
from neo_async.model.answer import Answer
from neo_async.transport.http import HttpClient
from neo_async.transport.redaction import Secrets
from neo_async.transport.tls import trusting


class KiteSession:
    """One application's way to log in. Keeps no connection open, and nothing that was answered."""

    def __init__(
        self,
        api_key: str,
        api_secret: str,
        *,
        endpoints: KiteEndpoints = KiteEndpoints(),  # noqa: B008 - frozen
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    ) -> None:
        for name, value in (("api_key", api_key), ("api_secret", api_secret)):
            if not value:
                raise UsageError(f"{name} is empty: copy it from the application's page at Kite")
        self._api_key = api_key
        self._api_secret = api_secret
        self._endpoints = endpoints
        self._timeouts = timeouts

    def __repr__(self) -> str:
        return f"<KiteSession at {self._endpoints.api}>"

    @property
    def login_url(self) -> str:
        """The page at which a person logs in. It sends the browser on to the application's own
        address, with a request token that is good for a few minutes, once."""
        query = urlencode({"v": VERSION_HEADERS["X-Kite-Version"], "api_key": self._api_key})
        return f"{self._endpoints.login.rstrip('/')}/connect/login?{query}"

    async def open(self, request_token: str) -> KiteLogin:
        """Turn a request token, or the whole address that it came in, into an access token.

        Raises LoginFailed when the address tells of a login that did not succeed, or Kite does not
        take the token or its checksum (a wrong `api_secret`), and TransportError when it cannot be
        reached.
        """
        return await self._session("/session/token", "request_token", _token_in(request_token))

    async def renew(self, refresh_token: str) -> KiteLogin:
        """The next access token, for applications that were given a refresh token."""
        return await self._session("/session/refresh_token", "refresh_token", refresh_token)

    async def end(self, access_token: str) -> None:
        """Make an access token worthless."""
        query = urlencode({"api_key": self._api_key, "access_token": access_token})
        answer = await self._request("DELETE", f"/session/token?{query}")
        with Secrets(self._api_key, access_token).kept_out_of_errors():
            check_success(answer)

    async def _session(self, path: str, name: str, token: str) -> KiteLogin:
        text = self._api_key + token + self._api_secret
        form = {
            "api_key": self._api_key,
            name: token,
            "checksum": hashlib.sha256(text.encode()).hexdigest(),
        }
        answer = await self._request("POST", path, form_body(form))
        with Secrets(*form.values(), self._api_secret).kept_out_of_errors():
            try:
                return read_login(answer)
            except SessionEnded as error:
                raise LoginFailed(
                    error.text, code=error.code, status=error.status, body=error.body
                ) from error

    async def _request(self, method: str, path: str, body: bytes = b"") -> Answer:
        http = HttpClient(
            connect_timeout=self._timeouts.connect, tls=trusting(self._endpoints.ca_file)
        )
        try:
            return await http.request(
                method,
                self._endpoints.api.rstrip("/") + path,
                headers={**VERSION_HEADERS, **(FORM_HEADERS if body else {})},
                body=body,
                timeout=self._timeouts.login,
            )
        finally:
            await http.close()


def _token_in(text: str) -> str:
    """The request token itself, or out of the address that the browser was sent to."""
    text = text.strip()
    if "?" not in text and "=" not in text:
        if not text:
            raise UsageError("request_token is empty: log in at login_url first")
        return text
    query = parse_qs(urlsplit(text).query or text)
    tokens = query.get("request_token")
    if not tokens or query.get("status", ["success"])[0] != "success":
        status = query.get("status", ["none"])[0]
        raise LoginFailed(f"the address holds no request token of a login that worked: {status=}")
    return tokens[0]
