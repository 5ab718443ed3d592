"""Whom to trust."""

from __future__ import annotations

import ssl

from neo_async.errors import UsageError


def trusting(ca_file: str) -> ssl.SSLContext | None:
    """A context that trusts the authority in a PEM file only; None (the system's) without one."""
    if not ca_file:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"ca_file={ca_file!r}: cannot be read as PEM: {error}") from error
