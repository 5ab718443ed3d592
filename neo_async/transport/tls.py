"""TLS settings: which certificate authorities are trusted."""

from __future__ import annotations

import ssl

from neo_async.errors import UsageError


def trusting(ca_file: str) -> ssl.SSLContext | None:
    """Return a context that trusts only the authorities in a PEM file; None, which stands for the
    system's authorities, without a file. Raises UsageError when it cannot be read."""
    if not ca_file:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"ca_file={ca_file!r}: cannot be read as PEM: {error}") from error
