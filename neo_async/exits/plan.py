"""An exit plan as its user sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from neo_async.base import logs
from neo_async.errors import NotLoggedIn
from neo_async.execution.order import Order
from neo_async.exits.checks import NewPrice
from neo_async.exits.state import ExitReason, PlanState, PlanStatus
from neo_async.model.enums import Product, Segment, Side

if TYPE_CHECKING:
    from neo_async.exits.runner import PlanRunner

log = logging.getLogger(logs.EXITS)


class PlanChange(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a plan after a change. Prices are rupees, quantities units."""

    at: float
    """Unix seconds."""
    plan: str
    """Id of the plan."""
    segment: Segment
    symbol: str
    side: Side
    """Side of the entry; exits are on the other one."""
    product: Product
    status: PlanStatus
    quantity: int
    """Units of the entry, or of the position that the plan protects."""
    entered: int
    """Units of the entry that have filled."""
    entry_price: Decimal | None
    """Average price of the entry's fills; None before the first one, and for a position that was
    there before."""
    open_quantity: int
    """Units that are held."""
    unprotected: int
    """Units without an exit order at the broker."""
    stop: Decimal | None
    """Trigger of the stop."""
    target: Decimal | None
    trail: Decimal | None
    """Distance at which the stop follows the best price; None where it does not."""
    reason: str
    """Why the plan ended, or why units are unprotected."""
    exited_by: ExitReason | None

    @classmethod
    def of(cls, state: PlanState, *, at: float) -> PlanChange:
        """Return the state of a plan at a time."""
        terms = state.terms
        return cls(
            at=at,
            plan=state.id,
            segment=terms.segment,
            symbol=terms.symbol,
            side=terms.side,
            product=terms.product,
            status=state.status,
            quantity=state.entry_quantity,
            entered=state.entry_filled,
            entry_price=state.entry_price,
            open_quantity=max(0, state.held),
            unprotected=state.unprotected,
            stop=state.stop,
            target=terms.target,
            trail=terms.trail,
            reason=state.reason,
            exited_by=state.exited_by,
        )


class ExitPlan:
    """An entry and its exits: what `neo.exits` returns.

    It goes on until it is final, over lost connections and, with a journal, over restarts.
    """

    def __init__(self, runner: PlanRunner) -> None:
        self._runner = runner

    @property
    def id(self) -> str:
        """Short id of the plan: it begins the client tags of its orders."""
        return self._state.id

    @property
    def _state(self) -> PlanState:
        return self._runner.state

    @property
    def state(self) -> PlanStatus:
        """The state of the plan."""
        return self._state.status

    @property
    def is_final(self) -> bool:
        """Whether the plan has ended."""
        return self._state.status.is_final

    @property
    def segment(self) -> str:
        """Segment of the instrument, `nse_cm`."""
        return self._state.terms.segment

    @property
    def symbol(self) -> str:
        """Trading symbol of the instrument."""
        return self._state.terms.symbol

    @property
    def stop(self) -> Decimal | None:
        """Trigger of the stop in rupees at present; it moves where the stop trails."""
        return self._state.stop

    @property
    def target(self) -> Decimal | None:
        """Target in rupees."""
        return self._state.terms.target

    @property
    def entry(self) -> Order | None:
        """The entry order, the first one of a sliced entry; None before it is placed, and for a
        position that was there before."""
        return self._runner.entries[0] if self._runner.entries else None

    @property
    def entries(self) -> list[Order]:
        """The entry orders: several where the quantity is above the freeze quantity."""
        return list(self._runner.entries)

    @property
    def exits(self) -> list[Order]:
        """The exit orders that the broker has taken, oldest first."""
        return self._runner.exits

    @property
    def open_quantity(self) -> int:
        """Units that are held and have to be exited."""
        return max(0, self._state.held)

    @property
    def unprotected(self) -> int:
        """Units that have no exit order at the broker for certain. For the moment between a fill
        and the answer to its stop, these are all of the fill."""
        return self._state.unprotected

    @property
    def reason(self) -> str:
        """Why the plan ended, or why units are unprotected; empty where nothing is wrong."""
        return self._state.reason

    @property
    def exited_by(self) -> ExitReason | None:
        """What exited the last unit; None while units are held."""
        return self._state.exited_by

    def snapshot(self) -> PlanChange:
        """Return the present state of the plan."""
        return self._runner.snapshot()

    async def change(
        self,
        *,
        stop: NewPrice = msgspec.UNSET,
        target: NewPrice = msgspec.UNSET,
        trail: NewPrice = msgspec.UNSET,
    ) -> None:
        """Change prices of the plan; None removes one. Returns when the change is written to the
        journal and on its way.

        Raises InvalidOrder for a price on the wrong side, off tick, or when neither stop nor target
        would be left; UsageError when the plan is final.
        """
        await self._runner.change(stop=stop, target=target, trail=trail)

    async def exit_now(self) -> ExitPlan:
        """Cancel what is open of the entry, and close what is held at the market, inside the
        broker's protection band, again and again until nothing is left. Returns when the plan is
        final."""
        self._runner.exit_now()
        await self.wait()
        return self

    async def cancel(self, *, leave_stop: bool = False) -> ExitPlan:
        """End the plan: cancel the entry and the exit orders, or leave the stop at the broker with
        `leave_stop`. What is held stays held. Returns when the order book proves it."""
        self._runner.cancel(leave_stop=leave_stop)
        await self.wait()
        return self

    async def wait(self, *states: PlanStatus, timeout: float | None = None) -> PlanStatus:
        """Wait until the plan is in one of `states`, or final. Return the state it is in.

        Raises TimeoutError after `timeout` seconds, and NotLoggedIn at a logout.
        """
        async with asyncio.timeout(timeout):
            while self.state not in states and not self.is_final:
                if not await self._runner.until_changed():
                    raise NotLoggedIn(f"logged out while plan {self.id} was waited for")
        return self.state

    async def changes(self) -> AsyncIterator[PlanChange]:
        """Yield the present state and every change of it, until the plan is final. A slow consumer
        gets the newest state."""
        last: PlanChange | None = None
        while True:
            change = self._runner.snapshot()
            if last is None or msgspec.structs.replace(change, at=last.at) != last:
                last = change
                yield change
            if self.is_final:
                return
            if not await self._runner.until_changed():
                return

    def __repr__(self) -> str:
        state = self._state
        prices = [
            f"{name} {price}"
            for name, price in (("stop", state.stop), ("target", state.terms.target))
            if price is not None
        ]
        bare = f", {state.unprotected} unprotected" if state.unprotected else ""
        by = f" by {state.exited_by}" if state.exited_by else ""
        return (
            f"<ExitPlan {state.id} {state.terms.side.name} {state.entry_quantity} "
            f"{state.terms.symbol} {' '.join(prices)}: {state.status}{by}, "
            f"{self.open_quantity} open{bare}>"
        )


def log_change(state: PlanState, last: PlanChange | None, change: PlanChange) -> None:
    """Log a change of a plan, as a warning where it failed or units have no exit."""
    bare = change.unprotected > 0 and bool(change.reason)
    if last is not None and (last.status, last.open_quantity, last.reason) == (
        change.status,
        change.open_quantity,
        change.reason,
    ):
        return
    log.log(
        logging.WARNING if bare or change.status is PlanStatus.FAILED else logging.INFO,
        "plan %s of %s: %s%s, %d of %d entered, %d open, %d without an exit order%s",
        state.id,
        state.terms.symbol,
        change.status,
        f" by {change.exited_by}" if change.exited_by else "",
        change.entered,
        state.entry_quantity,
        change.open_quantity,
        change.unprotected,
        f" ({change.reason})" if change.reason else "",
    )
