"""Limits of a client's plan with the bank."""

from __future__ import annotations

import msgspec

from neo_async.errors import UsageError


class BankSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of each client, and how long its tokens live."""

    requests_per_second: int | None = 5
    """Calls in any window of one second; None sets no limit."""
    requests_per_day: int | None = 10_000
    """Calls from midnight to midnight in India; None sets no limit."""
    token_seconds: int = 3600

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}={value}: must be at least 1")
