"""The addresses of an open exchange."""

from __future__ import annotations

import re
import secrets
from typing import Final

import msgspec

from neo_async.errors import UsageError
from neo_async.model.address import is_loopback

BASE_PATH: Final = "/neo"
"""The base URL has a path, as the broker's may: a client that replaces it instead of appending
fails."""
MARKET_PATH: Final = "/apifeed"
ORDER_PATH: Final = "/realtime"
"""Paths of the feeds, at the root and below the base URL."""
ADMIN_PATH: Final = "/admin"
BANK_PATH: Final = "/bank"

_KEY_BYTES: Final = 16
"""Random bytes in the key of an exchange that other machines can reach."""
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")


class Addresses(msgspec.Struct, frozen=True):
    """The addresses that clients connect to."""

    root_url: str
    admin_path: str

    @property
    def base_url(self) -> str:
        """Base URL of the broker's trading calls."""
        return f"{self.root_url}{BASE_PATH}"

    @property
    def feed_url(self) -> str:
        """Address of the market feed."""
        return f"{self.root_url}{MARKET_PATH}"

    @property
    def realtime_url(self) -> str:
        """Address of the order feed."""
        return f"{self.root_url}{ORDER_PATH}"

    @property
    def bank_url(self) -> str:
        """Address of Open Banking's gateway."""
        return f"{self.root_url}{BANK_PATH}"

    @property
    def admin_url(self) -> str:
        """Address of the control surface; on the network it holds the key."""
        return f"{self.root_url}{self.admin_path}"


def addresses_of(host: str, port: int, *, is_tls: bool, admin_path: str) -> Addresses:
    """Return the addresses of an exchange that listens on a port of a host."""
    # "0.0.0.0" listens on every interface, but is no address that a client can connect to.
    reachable = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    if ":" in reachable:
        reachable = f"[{reachable}]"
    return Addresses(f"{'https' if is_tls else 'http'}://{reachable}:{port}", admin_path)


def key_of(host: str, key: str) -> str:
    """Return the key of an exchange on a host: a random one off loopback unless it is given.

    Raises UsageError for a key that does not fit into a path.
    """
    if not is_loopback(host):
        key = key or secrets.token_urlsafe(_KEY_BYTES)
    if key and not _KEY.fullmatch(key):
        raise UsageError("key: must be 16 to 64 letters, digits, '-' and '_'")
    return key


def admin_path_of(key: str) -> str:
    """Return the path of the control surface."""
    return f"{ADMIN_PATH}/{key}" if key else ADMIN_PATH
