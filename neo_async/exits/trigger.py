"""A price trigger: an order that is placed when a price is reached."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import StrEnum

import msgspec

from neo_async.model.orders import OrderRequest


class TriggerStatus(StrEnum):
    """The state of a trigger."""

    WAITING = "waiting"
    """The price has not been reached."""
    PLACING = "placing"
    """The price was reached, and the order is on its way."""
    PLACED = "placed"
    """The broker has taken the order."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Its last day is over."""
    FAILED = "failed"
    """The order was refused; the reason says why."""

    @property
    def is_final(self) -> bool:
        """Whether the trigger can place nothing any more."""
        return self not in (TriggerStatus.WAITING, TriggerStatus.PLACING)


class TriggerState(msgspec.Struct, kw_only=True):
    """All that is known of a trigger. It is what the journal keeps."""

    id: str
    instrument: str
    """The instrument that is watched, `nse_cm|19084`."""
    above: Decimal | None = None
    below: Decimal | None = None
    order: OrderRequest
    until: date | None = None
    status: TriggerStatus = TriggerStatus.WAITING
    number: str = ""
    """Number of the order; empty before it is placed."""
    reason: str = ""

    def is_reached(self, price: Decimal) -> bool:
        """Return whether a price places the order."""
        return (self.above is not None and price >= self.above) or (
            self.below is not None and price <= self.below
        )
