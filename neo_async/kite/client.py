"""The client for mutual funds at Kite Connect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from neo_async.config import KiteEndpoints, RateLimits, Timeouts, variable_reader
from neo_async.errors import (
    InvalidOrder,
    UsageError,
)
from neo_async.kite import rules
from neo_async.kite.calls import Calls
from neo_async.kite.funds import Funds, FundStore
from neo_async.kite.in_flight import (
    InFlightOrders,
    Placement,
    Request,
    confirm_order_cancelled,
    confirm_sip_cancelled,
    confirm_sip_changed,
    find_order,
    find_sip,
)
from neo_async.kite.model import Frequency, Fund, FundHolding, FundOrder, Sip, SipStatus
from neo_async.kite.wire import (
    Row,
    read_holding,
    read_list,
    read_one,
    read_order,
    read_order_id,
    read_sip,
    read_sip_id,
)
from neo_async.model import money
from neo_async.model.enums import Side
from neo_async.model.orders import Price
from neo_async.transport.hidden import Hidden
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter

T = TypeVar("T")

_ORDERS: Final = "/mf/orders"
_SIPS: Final = "/mf/sips"
_HOLDINGS: Final = "/mf/holdings"
_INSTRUMENTS: Final = "/mf/instruments"

_ORDER_BOOK: Final = "list of orders"
_SIP_BOOK: Final = "list of SIPs"

_ROWS_AT_ONCE: Final = 50
"""Rows decoded between two yields to the event loop: they take less than a millisecond."""


class KiteMutualFunds:
    """The mutual funds of one investor.

    async with KiteMutualFunds(api_key, access_token) as kite:
        order_id = await kite.place_order("INF174K01LS2", Side.BUY, amount=5000)

    Kite collects orders and sends them to the exchange in a batch, at 13:30 on market days. Until
    then an order can be cancelled, and another one for the same fund replaces it. Kite's API does
    not support dividend reinvestment.

    Every call raises SessionEnded when the access token has ended (about six in the morning),
    Rejected when Kite refuses (its `error_type` is the error's `code`), RateLimited, ServerError or
    ProtocolError for other answers, and NotSent or AnswerLost when the network fails.
    """

    def __init__(
        self,
        api_key: str,
        access_token: str,
        *,
        endpoints: KiteEndpoints | None = None,
        rate_limit: int = 10,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        resolution_timeout: float = 30.0,
        directory: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take an access token from KiteSession. Without `endpoints`, the server is that of the
        environment (KiteEndpoints.from_env): KITE_URL leads to another one. `rate_limit` is the
        number of requests in any second.

        When the answer to a request is lost, nothing is sent again: the lists are read until they
        show its effect, or until `resolution_timeout` seconds later; without any effect by then it
        was not accepted. The day's list of funds is cached in `directory`, by default
        `$XDG_CACHE_HOME/neo_async`. `clock` gives Unix seconds.

        Raises UsageError when the key or the token is malformed.
        """
        key, token = Hidden(api_key), Hidden(access_token)
        del api_key, access_token  # tracebacks may show local variables
        endpoints = endpoints or KiteEndpoints.from_env()
        self._server = endpoints.api
        self.limiter = Limiter(RateLimits(orders=rate_limit, total=rate_limit))
        self._calls = Calls(
            key, token, endpoints, limiter=self.limiter, timeouts=timeouts, clock=clock
        )
        self._in_flight = InFlightOrders(
            resolution_timeout=resolution_timeout, patience=timeouts.read
        )
        self._store = FundStore(
            lambda: self._calls.download(_INSTRUMENTS),
            server=endpoints.api,
            directory=directory,
            clock=clock,
        )
        self._clock = clock
        self._known: set[str] = set()
        """Ids of all orders and SIPs in any list so far."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read `KITE_API_KEY` and `KITE_ACCESS_TOKEN`; `KITE_URL` and `KITE_CA_FILE` select another
        server. Raises UsageError that lists every variable that is missing."""
        read, given = variable_reader(environ), Hidden(environ)
        del environ  # tracebacks may show local variables
        missing = [name for name in ("KITE_API_KEY", "KITE_ACCESS_TOKEN") if not read(name)]
        if missing:
            raise UsageError(f"environment lacks {', '.join(missing)}")
        endpoints = KiteEndpoints.from_env(given.value)
        return cls(read("KITE_API_KEY"), read("KITE_ACCESS_TOKEN"), endpoints=endpoints)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection, and stop resolving lost answers."""
        await self._in_flight.close()
        await self._calls.close()

    def use_token(self, access_token: str) -> None:
        """Continue with the access token of a new login."""
        token = Hidden(access_token)
        del access_token  # tracebacks may show local variables
        self._calls.use_token(token)

    def __repr__(self) -> str:
        return f"<KiteMutualFunds at {self._server}, {self.limiter!r}>"

    # --- orders -------------------------------------------------------------------------------

    async def orders(self) -> list[FundOrder]:
        """Return the orders of the last seven days, newest first."""
        orders = await self._list(_ORDERS, read_order)
        self._known.update(order.order_id for order in orders)
        return orders

    async def order(self, order_id: str) -> FundOrder:
        """Return one order of any age."""
        path = f"{_ORDERS}/{rules.check_id('order_id', order_id)}"
        return await self._calls.read(path, lambda answer: read_order(read_one(answer)))

    async def place_order(
        self,
        tradingsymbol: str,
        side: Side | str,
        *,
        amount: Price | None = None,
        quantity: Price | None = None,
        tag: str = "",
        wait_for_outcome: bool = True,
    ) -> str:
        """Buy for an `amount` of rupees, or sell a `quantity` of units, of the fund with this ISIN.
        Return the order's id once Kite has accepted it.

        An open order of the same side for the fund is overwritten. `tag` is a tag of your own, up
        to 8 letters and digits; by default a unique one is generated. Once `instruments()` is
        loaded, the order is checked against the fund's rules, too.

        When the answer is lost, this waits until it is known whether Kite has accepted the order.
        It raises NotAccepted when Kite has not, and OutcomeUnknown when that cannot be established,
        or at once without `wait_for_outcome`. Raises InvalidOrder, and sends nothing, when a rule
        is broken, and InsufficientFunds or another Rejected when Kite refuses.
        """
        form = rules.order_form(tradingsymbol, side, amount, quantity, tag or rules.new_tag())
        await self._check_order(form)
        placement = Placement(
            tag=form["tag"],
            is_tag_unique=not tag,
            tradingsymbol=tradingsymbol,
            terms=(form["transaction_type"],),
            value=Decimal(form.get("amount") or form["quantity"]),
            sent_at=self._clock(),
            known=frozenset(self._known),
        )

        async def check() -> str | None:
            orders = await self._list(_ORDERS, read_order)
            return find_order(placement, orders, self._in_flight.own_ids, self._calls.skew)

        return await self._in_flight.place(
            Request("place order", _ORDER_BOOK, tag=placement.tag),
            placement,
            lambda: self._calls.change(Kind.PLACE, "POST", _ORDERS, form, read_order_id),
            check,
            wait_for_outcome=wait_for_outcome,
        )

    async def cancel_order(self, order_id: str, *, wait_for_outcome: bool = True) -> str:
        """Cancel an open order. Return its id.

        Raises Rejected when it is not open, OrderAlreadyFinal when that shows only after the answer
        was lost. A lost answer is resolved as for `place_order`.
        """
        path = f"{_ORDERS}/{rules.check_id('order_id', order_id)}"

        async def check() -> str | None:
            return confirm_order_cancelled(await self.order(order_id))

        return await self._in_flight.change(
            Request("cancel order", _ORDER_BOOK, number=order_id),
            lambda: self._calls.change(Kind.CANCEL, "DELETE", path, None, read_order_id),
            check,
            wait_for_outcome=wait_for_outcome,
        )

    # --- SIPs ---------------------------------------------------------------------------------

    async def sips(self) -> list[Sip]:
        """Return the SIPs that are active or paused."""
        sips = await self._list(_SIPS, read_sip)
        self._known.update(sip.sip_id for sip in sips)
        return sips

    async def sip(self, sip_id: str) -> Sip:
        """Return one SIP, which may be cancelled."""
        path = f"{_SIPS}/{rules.check_id('sip_id', sip_id)}"
        return await self._calls.read(path, lambda answer: read_sip(read_one(answer)))

    async def place_sip(
        self,
        tradingsymbol: str,
        amount: Price,
        *,
        frequency: Frequency | str,
        instalments: int = -1,
        instalment_day: int | None = None,
        initial_amount: Price | None = None,
        tag: str = "",
        wait_for_outcome: bool = True,
    ) -> str:
        """Invest an `amount` of rupees at regular intervals. Return the SIP's id.

        `frequency` is weekly, monthly or quarterly; a monthly SIP needs an `instalment_day` of 1,
        5, 10, 15, 20 or 25. `instalments` is their number, -1 for no end. The first investment in a
        fund needs an `initial_amount`, which is ordered at once. `tag`, `wait_for_outcome` and
        errors are as for `place_order`.
        """
        form = rules.sip_form(
            tradingsymbol,
            amount,
            frequency,
            instalments,
            instalment_day,
            initial_amount,
            tag or rules.new_tag(),
        )
        fund = self._fund(tradingsymbol)
        if fund is not None:
            rules.check_sip(fund, form)
        placement = Placement(
            tag=form["tag"],
            is_tag_unique=not tag,
            tradingsymbol=tradingsymbol,
            terms=(form["frequency"],),
            value=Decimal(form["amount"]),
            sent_at=self._clock(),
            known=frozenset(self._known),
        )

        async def check() -> str | None:
            sips = await self._list(_SIPS, read_sip)
            return find_sip(placement, sips, self._in_flight.own_ids, self._calls.skew)

        return await self._in_flight.place(
            Request("place SIP", _SIP_BOOK, tag=placement.tag),
            placement,
            lambda: self._calls.change(Kind.PLACE, "POST", _SIPS, form, read_sip_id),
            check,
            wait_for_outcome=wait_for_outcome,
        )

    async def modify_sip(
        self,
        sip_id: str,
        *,
        amount: Price | None = None,
        frequency: Frequency | str | None = None,
        instalments: int | None = None,
        instalment_day: int | None = None,
        status: SipStatus | str | None = None,
        wait_for_outcome: bool = True,
    ) -> str:
        """Change the given fields of a SIP and leave the others; the `status` `paused` pauses it,
        `active` resumes it. Return its id.

        `wait_for_outcome` and errors are as for `place_order`; OrderAlreadyFinal when it was
        cancelled meanwhile.
        """
        path = f"{_SIPS}/{rules.check_id('sip_id', sip_id)}"
        form = rules.sip_change_form(amount, frequency, instalments, instalment_day, status)
        if "amount" in form and self._store.loaded is not None:
            fund = self._fund((await self.sip(sip_id)).tradingsymbol)
            if fund is not None:
                rules.check_instalment(fund, form["amount"])

        async def check() -> str | None:
            return confirm_sip_changed(await self.sip(sip_id), form)

        return await self._in_flight.change(
            Request("modify SIP", _SIP_BOOK, number=sip_id),
            lambda: self._calls.change(Kind.MODIFY, "PUT", path, form, read_sip_id),
            check,
            wait_for_outcome=wait_for_outcome,
        )

    async def cancel_sip(self, sip_id: str, *, wait_for_outcome: bool = True) -> str:
        """Cancel a SIP. Return its id. `wait_for_outcome` and errors are as for `place_order`."""
        path = f"{_SIPS}/{rules.check_id('sip_id', sip_id)}"

        async def check() -> str | None:
            return confirm_sip_cancelled(await self.sip(sip_id))

        return await self._in_flight.change(
            Request("cancel SIP", _SIP_BOOK, number=sip_id),
            lambda: self._calls.change(Kind.CANCEL, "DELETE", path, None, read_sip_id),
            check,
            wait_for_outcome=wait_for_outcome,
        )

    # --- holdings and funds -------------------------------------------------------------------

    async def holdings(self) -> list[FundHolding]:
        """Return the units in the demat account, by fund and folio."""
        return await self._list(_HOLDINGS, read_holding)

    async def instruments(self, *, refresh: bool = False) -> Funds:
        """Return the day's list of funds: from memory, from disk or from Kite. With `refresh`,
        always from Kite. Later requests are checked against it.

        When Kite's list cannot be downloaded, an earlier day's is returned, with a warning and
        `is_stale`; not with `refresh`.
        """
        return await self._store.load(refresh=refresh)

    # --- checks -------------------------------------------------------------------------------

    def _fund(self, isin: str) -> Fund | None:
        """Return a fund; None without a loaded list. Raises InvalidOrder when today's list has no
        such fund, unless rows of the list were unreadable: one of them may be it."""
        funds = self._store.loaded
        if funds is None:
            return None
        fund = funds.get(isin)
        if fund is None and self._store.is_of_today and not funds.bad_row_count:
            raise InvalidOrder("tradingsymbol", isin, f"is no fund of the list of {funds.day}")
        return fund

    async def _check_order(self, form: Mapping[str, str]) -> None:
        """Check an order against the fund's rules, if a list of funds is loaded."""
        fund = self._fund(form["tradingsymbol"])
        if fund is None:
            return
        if "amount" in form:
            rules.check_purchase(fund, form["amount"])
            return
        held = None
        if rules.is_below_redemption(fund, form["quantity"]):
            holdings = await self.holdings()
            isin = fund.tradingsymbol
            units = [each.quantity for each in holdings if each.tradingsymbol == isin]
            if None not in units:
                held = float(money.total(money.exact(each) for each in units if each is not None))
        rules.check_redemption(fund, form["quantity"], held)

    async def _list(self, path: str, read: Callable[[Row], T]) -> list[T]:
        """Read a list, and decode its rows in portions."""
        rows = await self._calls.read(path, read_list)
        found: list[T] = []
        with self._calls.secrets.kept_out_of_errors():
            for first in range(0, len(rows), _ROWS_AT_ONCE):
                if first:
                    await asyncio.sleep(0)
                found += map(read, rows[first : first + _ROWS_AT_ONCE])
        return found
