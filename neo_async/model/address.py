"""The rule for addresses that a client may connect to, set by the user or given by a server.

Secrets never cross a network in clear text. Plain http and ws are allowed for loopback addresses,
or when the user sets `insecure`. An address given by a server reached over TLS must use TLS, too.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

WEB: Final = ("https", "http")
SOCKET: Final = ("wss", "ws")

_SECURE: Final = frozenset({"https", "wss"})

_LONGEST: Final = 2000
"""Longest address, in characters."""
_LONGEST_SHOWN: Final = 120

_PRINTABLE: Final = re.compile(r"[!-~]+")
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE
)

_BRACKETED: Final = re.compile(r"(?:[^\[\]@]*@)?\[(?P<host>[^\[\]@]+)\](?::[0-9]*)?")


def address_problem(
    address: str,
    *,
    schemes: tuple[str, ...] = WEB,
    tls_only: bool = False,
    insecure: bool = False,
    is_base: bool = False,
) -> str:
    """Return what is wrong with an address, to follow its `shown_address` in an error message;
    empty when a client may connect to it.

    `tls_only` is for an address given by a server that was reached over TLS. Without it, plain
    http and ws are allowed for loopback addresses, and with `insecure` for any. An address that
    `is_base` gets paths added, so it must not hold a query.
    """
    scheme, separator, _ = address.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in schemes:
        return f"must start with {' or '.join(f'{each}://' for each in schemes)}"
    host = _host(address)
    if not host:
        return "holds no host, or one or a port that cannot be"
    if "@" in urlsplit(address).netloc:
        return "must not hold a user name or a password"
    if is_base and ("?" in address or "#" in address):
        return "must not hold a query or a fragment: paths are added to it"
    if scheme in _SECURE:
        return ""
    secure = " or ".join(f"{each}://" for each in schemes if each in _SECURE)
    if tls_only:
        return f"must start with {secure}, as the address did that led to it"
    if insecure or is_loopback(host):
        return ""
    return (
        f"would carry secrets in clear text: must start with {secure}, or be on this machine "
        "(localhost, 127.0.0.1, ::1), unless insecure is set"
    )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine's loopback, without a DNS lookup."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_on_this_machine(address: str) -> bool:
    """Return whether an address is on this machine's loopback."""
    return is_loopback(_host(address))


def uses_tls(address: str) -> bool:
    """Return whether connections to an address are encrypted and their server authenticated."""
    return address.partition("://")[0].lower() in _SECURE


def shown_address(address: str) -> str:
    """Return an address for an error message: quoted, short, without a password or a query."""
    scheme, separator, rest = address[:_LONGEST].partition("?")[0].rpartition("://")
    place, slash, path = rest.partition("/")
    text = f"{scheme}{separator}{place.rpartition('@')[2]}{slash}{path}"
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")


def _host(address: str) -> str:
    """Return the host; empty when the host, the port or a character is not valid."""
    if len(address) > _LONGEST or not _PRINTABLE.fullmatch(address) or "\\" in address:
        return ""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        if parts.port == 0:
            return ""
        if "[" in parts.netloc:
            return host_in_brackets(parts.netloc)
    except ValueError:  # a port beyond 65535, half an IPv6 address
        return ""
    return host if _HOST.fullmatch(host) else ""


def host_in_brackets(authority: str) -> str:
    """Return the IPv6 address of `[host]` or `[host]:port`, with or without a user name before it.
    Raises ValueError for anything else. `urlsplit` drops what stands before the bracket and keeps
    what is inside, which would take `http://0[::1]` for the loopback address."""
    match = _BRACKETED.fullmatch(authority)
    if match is None:
        raise ValueError(f"{authority!r}: holds no IPv6 address in brackets")
    return str(ipaddress.IPv6Address(match["host"]))
