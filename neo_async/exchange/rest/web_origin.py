"""Refusal of HTTP requests that a web page made, or that name another host.

The exchange runs on developers' machines, and every page open in a browser there can send requests
to it: directly (cross-site) or through a name of the page's own that resolves to 127.0.0.1 (DNS
rebinding). Browsers name the page in `Origin` (Fetch standard) and its relation to the server in
`Sec-Fetch-Site` (Fetch Metadata); no trading client sends a foreign one.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from neo_async.model.address import host_in_brackets, is_loopback


def foreign_page(headers: Mapping[str, str], method: str, *, on_loopback: bool) -> str | None:
    """Return why the request is taken for one of a foreign web page; None when it is not.

    `on_loopback` means that the exchange listens on this machine only: then a page's own host must
    be a loopback name, whatever name it reached the exchange by.
    """
    origin = headers.get("Origin")
    if origin is not None:
        authority = origin.partition("://")[2]
        if authority.lower() != headers.get("Host", "").lower():
            return f"Origin {origin!r} is another site"
        if on_loopback and not is_loopback(_host_of(authority)):
            return f"Origin {origin!r} is no name of this machine"
    site = headers.get("Sec-Fetch-Site", "none")
    is_navigation = method == "GET" and headers.get("Sec-Fetch-Mode") == "navigate"
    if site not in ("none", "same-origin") and not is_navigation:
        return f"Sec-Fetch-Site {site!r} shows that another site's page made the request"
    return None


def foreign_host(headers: Mapping[str, str]) -> str | None:
    """Return why the `Host` header is no name of this machine; None when it is one."""
    host = headers.get("Host", "")
    return None if is_loopback(_host_of(host)) else f"Host {host!r} is no name of this machine"


def _host_of(authority: str) -> str:
    """Return the host of a `host:port`; empty when it is not one."""
    if any(mark in authority for mark in "/?#@"):
        return ""
    try:
        if "[" in authority:
            return host_in_brackets(authority)
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:  # no IPv6 address in the brackets
        return ""
