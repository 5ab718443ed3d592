"""Kite's login: exchange the website's request token for the access token of calls.

    session = KiteSession(api_key, api_secret)
    print(session.login_url)                    # open it in a browser, and log in
    login = await session.open(redirected_url)  # the address of the redirect
    async with KiteMutualFunds(api_key, login.access_token) as kite: ...

The login is not in the mutual-fund documentation; its facts are from the official client.
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
from neo_async.transport.hidden import Hidden
from neo_async.transport.http import HttpClient
from neo_async.transport.reading import read_answer
from neo_async.transport.redaction import Secrets
from neo_async.transport.tls import trusting


class KiteSession:
    """The login of one application. It keeps no connection open, and no token."""

    def __init__(
        self,
        api_key: str,
        api_secret: str,
        *,
        endpoints: KiteEndpoints | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    ) -> None:
        self._endpoints = endpoints or KiteEndpoints.from_env()
        self._timeouts = timeouts
        self._api_key = api_key
        self._api_secret = api_secret
        del api_key, api_secret  # tracebacks may show local variables
        for name in ("api_key", "api_secret"):
            if not getattr(self, f"_{name}"):
                raise UsageError(f"{name} is empty: copy it from the application's page at Kite")

    def __repr__(self) -> str:
        return f"<KiteSession at {self._endpoints.api}>"

    @property
    def login_url(self) -> str:
        """Address of the page where the user logs in. It redirects the browser to the application's
        own address, with a request token that is valid once and for a few minutes."""
        query = urlencode({"v": VERSION_HEADERS["X-Kite-Version"], "api_key": self._api_key})
        return f"{self._endpoints.login.rstrip('/')}/connect/login?{query}"

    async def open(self, request_token: str) -> KiteLogin:
        """Exchange a request token, or the whole address that contains it, for an access token.

        Raises LoginFailed when the address is of a failed login, or Kite refuses the token or its
        checksum (a wrong `api_secret`), and TransportError when Kite cannot be reached.
        """
        given = Hidden(request_token)
        del request_token  # tracebacks may show local variables
        return await self._session("/session/token", "request_token", _token_in(given))

    async def renew(self, refresh_token: str) -> KiteLogin:
        """Return the next access token, for applications that have a refresh token."""
        token = Hidden(refresh_token)
        del refresh_token  # tracebacks may show local variables
        return await self._session("/session/refresh_token", "refresh_token", token)

    async def end(self, access_token: str) -> None:
        """Invalidate an access token."""
        token = Hidden(access_token)
        del access_token  # tracebacks may show local variables
        query = Hidden(urlencode({"api_key": self._api_key, "access_token": token.value}))
        answer = await self._request("DELETE", "/session/token", query=query)
        with Secrets(self._api_key, token.value).kept_out_of_errors():
            await read_answer(answer, check_success)

    async def _session(self, path: str, name: str, token: Hidden[str]) -> KiteLogin:
        text = Hidden((self._api_key + token.value + self._api_secret).encode())
        form = Hidden(
            {
                "api_key": self._api_key,
                name: token.value,
                "checksum": hashlib.sha256(text.value).hexdigest(),
            }
        )
        answer = await self._request("POST", path, Hidden(form_body(form.value)))
        with Secrets(*form.value.values(), self._api_secret).kept_out_of_errors():
            try:
                return await read_answer(answer, read_login)
            except SessionEnded as error:
                raise LoginFailed(
                    error.text, code=error.code, status=error.status, body=error.body
                ) from error

    async def _request(
        self,
        method: str,
        path: str,
        body: Hidden[bytes] = Hidden(b""),  # noqa: B008 - never changed
        *,
        query: Hidden[str] = Hidden(""),  # noqa: B008 - never changed
    ) -> Answer:
        http = HttpClient(
            connect_timeout=self._timeouts.connect,
            tls=trusting(self._endpoints.ca_file),
            insecure=self._endpoints.insecure,
        )
        try:
            return await http.request(
                method,
                self._endpoints.api.rstrip("/") + path + (f"?{query.value}" if query.value else ""),
                headers={**VERSION_HEADERS, **(FORM_HEADERS if body.value else {})},
                body=body.value,
                timeout=self._timeouts.login,
            )
        finally:
            await http.close()


def _token_in(given: Hidden[str]) -> Hidden[str]:
    """Return the request token, which may be given in the address of the redirect."""
    text = Hidden(given.value.strip())
    if "?" not in text.value and "=" not in text.value:
        if not text.value:
            raise UsageError("request_token is empty: log in at login_url first")
        return text
    try:
        query = Hidden(parse_qs(urlsplit(text.value).query or text.value))
    except ValueError:  # half an IPv6 address, too many fields
        raise UsageError(
            "request_token: is neither a token nor the address that the browser was sent to"
        ) from None
    tokens = Hidden(query.value.get("request_token", []))
    status = query.value.get("status", ["none"])[0]
    if not tokens.value or query.value.get("status", ["success"])[0] != "success":
        raise LoginFailed(f"the address holds no request token of a login that worked: {status=}")
    return Hidden(tokens.value[0])
