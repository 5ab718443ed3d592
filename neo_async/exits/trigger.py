"""A price trigger: an order that is placed once when a price is reached."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import date
from decimal import Decimal
from enum import StrEnum

import msgspec

from neo_async.base import logs
from neo_async.base.india import date_of, seconds_to_midnight
from neo_async.errors import NeoError, NotLoggedIn, OutcomeUnknown
from neo_async.execution.order import Order
from neo_async.model.orders import OrderRequest, OrderTerms
from neo_async.wire.tags import entry_tag

log = logging.getLogger(logs.EXITS)


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


class TriggerState(msgspec.Struct, kw_only=True, tag="trigger"):
    """All that is known of a trigger. It is what the journal keeps."""

    id: str
    instrument: str
    """The instrument that is watched, `nse_cm|19084`."""
    above: Decimal | None = None
    below: Decimal | None = None
    order: OrderTerms
    until: date | None = None
    """Last day on which it may place the order; None has no last day."""
    status: TriggerStatus = TriggerStatus.WAITING
    placed_on: date | None = None
    """Day in India on which the placement of the order began; None before it."""
    number: str = ""
    """Number of the order; empty before it is placed."""
    reason: str = ""

    def is_reached(self, price: Decimal) -> bool:
        """Return whether a price places the order."""
        return (self.above is not None and price >= self.above) or (
            self.below is not None and price <= self.below
        )


class PriceTrigger:
    """An order that waits for a price: what `neo.exits.when` returns.

    With a journal it waits over restarts. It places its order once: where the outcome of the
    placement is unknown, nothing is placed again before it is proven.
    """

    def __init__(
        self,
        state: TriggerState,
        *,
        place: Callable[[OrderRequest], Awaitable[Order]],
        find_orders: Callable[[str, list[str]], list[Order]],
        write: Callable[[TriggerState], None],
        clock: Callable[[], float],
        opens_in: Callable[[], float],
        on_end: Callable[[PriceTrigger], None],
    ) -> None:
        """`opens_in` returns the seconds until the market of the order opens, 0 while it is
        open."""
        self._state = state
        self._place = place
        self._find_orders = find_orders
        self._write = write
        self._clock = clock
        self._opens_in = opens_in
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._reached = asyncio.Event()
        self._is_early = False
        """Whether the order was refused while its market was closed."""
        self._stopped = asyncio.Event()
        """Set when the trigger is final, and between a logout and the next login."""
        self.order: Order | None = None
        """The order, once it is placed."""

    @property
    def id(self) -> str:
        """Short id of the trigger: it begins the client tag of its order."""
        return self._state.id

    @property
    def instrument(self) -> str:
        """The instrument that is watched, `nse_cm|19084`."""
        return self._state.instrument

    @property
    def status(self) -> TriggerStatus:
        """The state of the trigger."""
        return self._state.status

    @property
    def reason(self) -> str:
        """Why the order was refused; empty otherwise."""
        return self._state.reason

    def cancel(self) -> None:
        """Stop waiting for the price. An order that was placed stays."""
        if self._state.status is TriggerStatus.WAITING:
            self._end(TriggerStatus.CANCELLED)

    async def wait(self, *, timeout: float | None = None) -> TriggerStatus:
        """Wait until the trigger is final, and return its state. Raises TimeoutError after
        `timeout` seconds, and NotLoggedIn at a logout."""
        async with asyncio.timeout(timeout):
            await self._stopped.wait()
        if not self.status.is_final:
            raise NotLoggedIn(f"logged out while trigger {self.id} was waited for")
        return self.status

    def __repr__(self) -> str:
        state = self._state
        level = f"above {state.above}" if state.above is not None else f"below {state.below}"
        order = state.order
        return (
            f"<PriceTrigger {state.id} {state.instrument} {level}: {order.side.name} "
            f"{order.quantity} {order.symbol}, {state.status}>"
        )

    # --- used by Exits ------------------------------------------------------------------------

    def on_price(self, price: Decimal) -> None:
        """Place the order where the price is reached."""
        if self._state.status is TriggerStatus.WAITING and self._state.is_reached(price):
            self._reached.set()

    def take_up(self) -> None:
        """Go on with a trigger after a login. A placement of today has an outcome by now: an order
        with its tag, or none, and then it waits for the price again. That of an earlier day may
        have been taken, and nothing that the broker lists today shows it."""
        state = self._state
        if state.status is not TriggerStatus.PLACING or self._is_running:
            return
        found = self._find_orders(entry_tag(self.id), [])
        if found:
            self._placed(found[0])
        elif state.placed_on is not None and state.placed_on < date_of(self._clock()):
            self._fail(
                f"the process ended while its order was placed on {state.placed_on}: whether the "
                "broker took it is not known, compare the trade book of that day"
            )
        else:
            state.status = TriggerStatus.WAITING

    def start(self) -> None:
        """Start the trigger's task, unless it runs or the trigger is final."""
        self._is_stopped = False
        if self.status.is_final:
            return
        self._stopped.clear()
        if not self._is_running:
            self._task = asyncio.create_task(
                self._run_to_the_end(), name=f"price trigger {self.id}"
            )

    async def stop(self) -> None:
        """Stop waiting for the price: the trigger goes on after the next login. A placement under
        way is left to its answer."""
        self._is_stopped = True
        if self._task is not None and self._state.status is TriggerStatus.WAITING:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._stopped.set()

    @property
    def _is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _run_to_the_end(self) -> None:
        """Run the trigger. An error in here must not end it in silence."""
        try:
            await self._run()
        except Exception as error:
            log.exception("trigger %s stops", self.id)
            self._fail(f"an error of this client, {error!r}")

    async def _run(self) -> None:
        while self._state.status is TriggerStatus.WAITING and not self._is_stopped:
            if self._state.until is not None and date_of(self._clock()) > self._state.until:
                self._end(TriggerStatus.EXPIRED)
                return
            if not await self._is_reached_today():
                continue
            await self._place_order()

    async def _is_reached_today(self) -> bool:
        """Wait for the price until midnight. Return whether it was reached."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_to_midnight(self._clock())):
                if self._is_early:
                    await asyncio.sleep(self._opens_in())
                    self._is_early = False
                    self._reached.clear()  # by a price of before the open
                await self._reached.wait()
                return True
        return False

    async def _place_order(self) -> None:
        state = self._state
        request = OrderRequest(**msgspec.structs.asdict(state.order), tag=entry_tag(state.id))
        state.status, state.placed_on = TriggerStatus.PLACING, date_of(self._clock())
        self._write(state)
        try:
            self._placed(await self._place(request))
        except NotLoggedIn:
            self._wait_again()
        except OutcomeUnknown as error:
            log.error("trigger %s: %s", state.id, error)
            self._fail(str(error))
        except NeoError as error:
            if self._opens_in():
                # The market is closed: it is tried again once the price is there in its hours.
                log.info("trigger %s waits for the open: %s", state.id, error)
                self._is_early = True
                self._wait_again()
                return
            self._fail(str(error))

    def _wait_again(self) -> None:
        self._state.status = TriggerStatus.WAITING
        self._write(self._state)
        self._reached.clear()

    def _placed(self, order: Order) -> None:
        self.order = order
        self._state.number = order.number
        self._end(TriggerStatus.PLACED)

    def _fail(self, reason: str) -> None:
        self._state.reason = reason
        self._end(TriggerStatus.FAILED)

    def _end(self, status: TriggerStatus) -> None:
        state = self._state
        state.status = status
        self._write(state)
        level = logging.WARNING if status is TriggerStatus.FAILED else logging.INFO
        why = f" ({state.reason})" if state.reason else ""
        log.log(level, "trigger %s of %s: %s%s", state.id, state.instrument, status, why)
        self._stopped.set()
        self._on_end(self)
