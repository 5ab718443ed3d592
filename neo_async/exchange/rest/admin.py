"""The exchange's control surface: its ledger and requests, prices, clock and faults.

Not part of the broker's protocol. Errors are `{"error": "what is wrong and what would be right"}`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from neo_async.base.india import IST, in_india
from neo_async.errors import UsageError
from neo_async.exchange.clock import MovedClock
from neo_async.exchange.engine.lookup import find_listing
from neo_async.exchange.engine.types import OrderRecord
from neo_async.exchange.faults.plan import FaultPlan
from neo_async.exchange.faults.settings import read_faults
from neo_async.exchange.rest.replies import Reply, json
from neo_async.exchange.rest.requests import read_rupees
from neo_async.exchange.rest.services import Answer, Call, Service
from neo_async.exchange.switches import Switches
from neo_async.exchange.venue import Venue
from neo_async.wire.lenient import UNREADABLE

REQUESTS_KEPT = 1_000_000


class Request(NamedTuple):
    time: float
    method: str
    path: str


class _Price(msgspec.Struct):
    """A trade prints at `price` rupees, a number or text, in an instrument: `RELIANCE-EQ` or
    `nse_cm|2885`, or `segment` with its `token`."""

    price: str | float
    instrument: str = ""
    segment: str = ""
    token: str = ""


class _Clock(msgspec.Struct):
    now: str | float | None = None
    """Unix seconds, or a date and time, in India unless it has an offset."""
    advance: float | None = None
    """Seconds by which the clock is moved on."""


_PRICE_HINT = 'send {"instrument": "RELIANCE-EQ", "price": rupees}'
_SETTINGS_HINT = 'send {"name": value, ...}'
_CLOCK_HINT = 'send {"now": "2026-11-23T09:15:00"} or {"advance": seconds}'


class Admin:
    def __init__(
        self,
        venue: Venue,
        clock: MovedClock,
        faults: FaultPlan,
        services: Sequence[Service],
        switches: Switches,
        path: str,
    ) -> None:
        self._venue = venue
        self._moved_clock = clock
        self._plan = faults
        self._services = services
        self._switches = switches
        self._prefix = f"{path}/"
        self.requests: deque[Request] = deque(maxlen=REQUESTS_KEPT)
        """Requests that reached the server, except those to this surface; the newest million."""
        self._routes: dict[str, Mapping[str, Answer]] = {
            "ledger": {"GET": self._ledger},
            "requests": {"GET": self._requests},
            "price": {"POST": self._price},
            "clock": {"POST": self._clock},
            "faults": {"GET": self._faults, "POST": self._set_faults},
            "settings": {"GET": self._settings, "POST": self._set_settings},
            "reset": {"POST": self._reset},
        }
        for service in services:
            self._routes.update(service.admin_routes)

    def takes(self, path: str) -> bool:
        return path.startswith(self._prefix)

    def answer(self, call: Call) -> Reply:
        name = call.path.removeprefix(self._prefix)
        if name not in self._routes:
            return _error(404, f"no {call.path} here; there are {', '.join(self._routes)}")
        methods = self._routes[name]
        if call.method not in methods:
            return _error(405, f"{call.path} takes {' or '.join(methods)}, not {call.method}")
        return methods[call.method](call)

    def _ledger(self, _: Call) -> Reply:
        return json([_entry(order) for order in self._venue.now().ledger])

    def _requests(self, _: Call) -> Reply:
        return json([request._asdict() for request in self.requests])

    def _price(self, call: Call) -> Reply:
        market = self._venue.now()
        try:
            wanted = msgspec.json.decode(call.body, type=_Price)
            name = wanted.instrument or f"{wanted.segment}|{wanted.token}"
            listing = find_listing(market, name)
            price = read_rupees(wanted.price)
            market.print_price(listing.segment, listing.token, price)
        except UNREADABLE as error:
            return _error(400, f"{error}; {_PRICE_HINT}")
        except UsageError as error:
            return _error(400, f"no trade printed: {error}; {_PRICE_HINT}")
        return json(
            {
                "segment": listing.segment,
                "token": listing.token,
                "symbol": listing.symbol,
                "price": price / 100,
            }
        )

    def _clock(self, call: Call) -> Reply:
        try:
            wanted = msgspec.json.decode(call.body, type=_Clock)
        except UNREADABLE as error:
            return _error(400, f"{error}; {_CLOCK_HINT}")
        if (wanted.now is None) is (wanted.advance is None):
            return _error(400, f"either now or advance, not both; {_CLOCK_HINT}")
        try:
            if wanted.advance is not None:
                self._moved_clock.advance(wanted.advance)
            else:
                self._moved_clock.set(_read_time(wanted.now))
        except UsageError as error:
            return _error(400, f"{error}; {_CLOCK_HINT}")
        self._venue.now()
        now = self._moved_clock()
        return json({"now": now, "india": f"{in_india(now):%Y-%m-%dT%H:%M:%S}"})

    def _faults(self, _: Call) -> Reply:
        return json(self._plan.report())

    def _set_faults(self, call: Call) -> Reply:
        try:
            self._plan.set(read_faults(call.body))
        except UsageError as error:
            return _error(400, str(error))
        return json(self._plan.report())

    def _settings(self, _: Call) -> Reply:
        return json(self._switches.report())

    def _set_settings(self, call: Call) -> Reply:
        try:
            self._switches.set(msgspec.json.decode(call.body, type=dict[str, object]))
        except UNREADABLE as error:
            return _error(400, f"{error}; {_SETTINGS_HINT}")
        except UsageError as error:
            return _error(400, str(error))
        return json(self._switches.report())

    def _reset(self, _: Call) -> Reply:
        """Open a fresh market, with no request on record. Logins, settings and faults stay; the
        last are drawn and counted from the beginning again, so that a scenario can be repeated."""
        self._venue.reset()
        self._switches.reapply()
        self._plan.restart()
        for service in self._services:
            service.reset()
        self.requests.clear()
        return json({"reset": True})


def _entry(order: OrderRecord) -> dict[str, object]:
    """Return an entry of the ledger, with money in rupees and times in Unix ns."""
    return {
        "number": order.number,
        "account": order.account,
        "client_tag": order.client_tag,
        "state": order.status.value,
        "segment": order.listing.segment.value,
        "token": order.listing.token,
        "symbol": order.listing.symbol,
        "side": order.side.value,
        "product": order.product.value,
        "order_type": order.order_type.value,
        "validity": order.validity.value,
        "price": order.price / 100,
        "trigger": order.trigger / 100,
        "quantity": order.quantity,
        "filled_quantity": order.filled_quantity,
        "pending_quantity": order.pending_quantity,
        "cancelled_quantity": order.cancelled_quantity,
        "reject_reason": order.reject_reason,
        "modifications": order.request_id - 1,
        "arrivals": order.arrivals,
        "accepted_ns": order.accepted_ns,
        "updated_ns": order.updated_ns,
        "fills": [
            {
                "trade_number": fill.trade_number,
                "quantity": fill.quantity,
                "price": fill.price / 100,
                "time_ns": fill.time_ns,
            }
            for fill in order.fills
        ],
    }


def _read_time(text: str | float | None) -> float:
    if isinstance(text, float | int):
        return float(text)
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        raise UsageError(f"now={text!r} is no date and time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=IST)).timestamp()


def _error(status: int, text: str) -> Reply:
    return json({"error": text}, status=status)
