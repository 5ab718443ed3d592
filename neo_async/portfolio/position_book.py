"""The position book: positions merged from the report, position messages and fills.

Pure: no I/O, no clock, no await. Callers give the times, in seconds of one clock, and the day, as a
number that grows from day to day in India.

Trades are reported by three sources, and none of them is enough:

- The *positions report* has all trades of the day and all that was carried, but it is read now and
  then, and the server that answers may lag behind the one that sends the messages.
- A *position message* has the day's totals of one position, exactly; it may be lost.
- An *order message* has the filled quantity of an order. Its average price is rounded, so it
  values nothing, but it proves that a trade has happened that some position has to show.

Report and messages together make the rows. Fills make two bounds of what was traded today, see
`_traded_at_least` and `_traded_at_most`. What holds at every moment:

1. Within a day, the trades of a row only grow: a report that lacks trades which a message has
   reported does not count for `REPORT_LAG_SECONDS`. After that it does.
2. A message changes a row only if it continues it: same day, same carried quantity, totals not
   smaller. Any other message waits, and a report has to be read.
3. A message, a fill or a report that arrives again changes nothing.
4. The net quantity lies within `net_range`, provided that no order message was lost since the
   newest report was requested, and that this report lacked no older trades than that.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from neo_async.base.india import day_number
from neo_async.model.enums import OrderStatus, Side
from neo_async.model.orders import OrderRow
from neo_async.model.portfolio import Holding, Position, PositionKey, PositionRow
from neo_async.model.updates import PositionUpdate
from neo_async.portfolio.position_effects import (
    UNKNOWN_FILL,
    Fill,
    MessageEffect,
    Overruled,
    ReportEffect,
)
from neo_async.portfolio.position_rows import (
    SEGMENTS,
    by_key,
    continues,
    instrument_of,
    is_ahead,
    is_complete,
    is_flat,
    is_price,
    position_key,
    side_of,
    traded,
    updated,
)
from neo_async.portfolio.valuation import holding_of, value_position

REPORT_LAG_SECONDS = 60.0
"""Time for which the report may lack trades that messages have reported; after that the report is
right."""

UNLISTED_READS = 6
"""Reports without a position that a message is about, after which the message is dropped."""


class PositionBook:
    """Positions with their values, and bounds of the quantities that may be held."""

    def __init__(self) -> None:
        self.is_odd: Callable[[OrderRow], bool] = operator.attrgetter("contradicts_itself")
        """Finds the filled quantity of an order's report to be impossible."""
        self._rows: dict[PositionKey, PositionRow] = {}
        self._nameless: set[PositionKey] = set()
        """Keys of the rows that are not flat and do not name their instrument."""
        self._holdings: Mapping[str, Holding] = {}
        self._prices: dict[str, float] = {}
        """Last prices by instrument."""
        self._by_instrument: dict[str, list[PositionKey]] = {}
        self._valued: dict[PositionKey, Position] = {}
        """Positions as last valued, without those that have changed since."""

        self._ahead_since: dict[PositionKey, float] = {}
        """Times since which the report lacks trades of a position that messages have reported."""
        self._unlisted: dict[PositionKey, PositionUpdate] = {}
        """Messages about positions that the report does not list yet."""
        self.unlisted_reads = 0
        """Reports in a row that did not list a position of `_unlisted`."""

        self._filled: dict[str, int] = {}
        """Filled units by order number, as the order messages of `_today` have reported them."""
        self._filled_before: dict[str, int] = {}
        """The same of the last earlier day that had any: an order may live over midnight."""
        self._today = 0
        self._unknown_fills = 0
        """Fills whose message lacks the position or the quantity, and that no report
        has covered since."""

        # Two bounds of the units bought and sold today, both by fills. A fill counts in both when
        # it is reported; they differ in how a report affects them.
        self._traded_at_least: defaultdict[PositionKey, list[int]] = defaultdict(lambda: [0, 0])
        """Lower bound: the fills of `_today`. A report does not change it, for the report may lack
        them; it expires when the report cannot lack them any more. Fills whose message was lost are
        not in it: it may be too little, but never too much."""
        self._traded_at: dict[PositionKey, float] = {}
        """Times at which the last fill in the lower bound was reported."""
        self._traded_at_most: dict[PositionKey, tuple[int, int]] = {}
        """Upper bound: the newest report and the fills since it was requested. A fill reported
        while the report was under way may be in the report as well, and then counts twice: it may
        be too much, but never too little."""
        self._young_at: dict[PositionKey, float] = {}
        """Times at which the last fill that was young then was reported."""
        self._lacked_at_most: dict[PositionKey, tuple[int, int]] = {}
        """Upper bounds from before a report that shows less: it may lack fills that are younger
        than `REPORT_LAG_SECONDS`, or they were in the report before it and counted twice."""
        self.awaiting_since = 0.0
        """Time at which `awaits_messages` became true."""

        # Between `begin_report` and its end, what arrives may be newer than the report.
        self._is_report_pending = False
        self._unknown_at_request = 0
        self._updates_meanwhile: list[PositionUpdate] = []
        self._fills_meanwhile: list[Fill] = []
        self._priced_meanwhile: set[str] = set()

    # --- positions ----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: PositionKey) -> bool:
        return key in self._rows

    def has_instrument(self, instrument: str) -> bool:
        """Return whether there is a position in the instrument."""
        return instrument in self._by_instrument

    @property
    def positions(self) -> dict[PositionKey, Position]:
        """The positions, valued at the last prices."""
        return {key: self.position(key) for key in self._rows}

    def position(self, key: PositionKey) -> Position:
        """Return one position, valued at the last price."""
        position = self._valued.get(key)
        if position is None:
            row = self._rows[key]
            price = self._prices.get(instrument_of(row))
            position = value_position(row, holding_of(row, self._holdings), price)
            self._valued[key] = position
        return position

    @property
    def has_unlisted(self) -> bool:
        """Whether messages wait for a report that lists their positions."""
        return bool(self._unlisted)

    @property
    def is_report_behind(self) -> bool:
        """Whether the newest report lacked trades that messages have reported."""
        return bool(self._ahead_since)

    @property
    def awaits_messages(self) -> bool:
        """Whether an order was filled by more than its position shows."""
        for key, (bought, sold) in self._traded_at_most.items():
            row = self._rows.get(key)
            if row is not None and not row.has_quantities:
                continue  # only a report can show it
            shown = (0, 0) if row is None else traded(row)
            if shown[0] < bought or shown[1] < sold:
                return True
        return False

    def net_range(self, segment: str, symbol: str, today: int) -> tuple[int, int] | None:
        """Return the least and the most units of an instrument that may be held over all products.
        None when no bound is known: a quantity of a position or a fill cannot be read, or the
        instrument of a position that is not flat."""
        if self._unknown_fills:
            return None
        self._begin_day(today)
        instrument = position_key(segment, symbol, "")[:2]
        least = most = 0
        for key in (
            self._rows.keys()
            | self._traded_at_most.keys()
            | self._lacked_at_most.keys()
            | self._traded_at_least.keys()
            | self._unlisted.keys()
        ):
            if key[:2] != instrument:
                if key in self._nameless and _may_be(key, instrument):
                    return None
                continue
            row = self._rows.get(key)
            if row is not None and not row.has_quantities:
                return None
            carried, reported = (row.carried_quantity, traded(row)) if row else (0, (0, 0))
            at_least = tuple(map(max, reported, self._traded_at_least.get(key, (0, 0))))
            at_most = tuple(map(max, at_least, self._traded_at_most.get(key, (0, 0))))
            at_most = tuple(map(max, at_most, self._lacked_at_most.get(key, (0, 0))))
            if (update := self._unlisted.get(key)) is not None:
                at_most = tuple(map(max, at_most, traded(update)))
            # Least held: bought as little, and sold as much, as may be.
            least += carried + at_least[0] - at_most[1]
            most += carried + at_most[0] - at_least[1]
        return least, most

    # --- prices -------------------------------------------------------------------------------

    def apply_price(self, instrument: str, last_price: float) -> Sequence[PositionKey]:
        """Take over the last price of an instrument, and return the positions that it changes."""
        keys = self._by_instrument.get(instrument)
        if keys is None or not is_price(last_price):
            return ()
        if self._is_report_pending:
            self._priced_meanwhile.add(instrument)
        if self._prices.get(instrument) == last_price:
            return ()
        self._prices[instrument] = last_price
        for key in keys:
            self._valued.pop(key, None)
        return keys

    # --- fills --------------------------------------------------------------------------------

    def is_new_fill(self, row: OrderRow, today: int) -> bool:
        """Return whether a row of an order book has a fill of today that no order message has
        reported."""
        # Without its number, an order that is known already would count once more.
        if (self._filled_in(row) or 0) <= self._known_fill(row.number) or not row.has_number:
            return False
        # A book may still be that of yesterday for a while after midnight.
        return not row.updated_ns or day_number(row.updated_ns // 10**9) >= today

    def apply_fill(self, row: OrderRow, *, now: float, today: int) -> Fill | None:
        """Take over the filled quantity of an order's report, and return the fill that it adds;
        None when it adds none."""
        filled = self._filled_in(row)
        if filled is None and row.status.is_final:
            self._unknown_fills += 1
            return UNKNOWN_FILL
        if not filled:
            return None
        self._begin_day(today)
        quantity = filled - self._known_fill(row.number)
        if quantity <= 0:
            return None
        self._filled[row.number] = filled
        side = side_of(row.side)
        if side is None or not (row.segment and row.symbol and row.product):
            self._unknown_fills += 1
            return UNKNOWN_FILL
        bought, sold = (quantity, 0) if side is Side.BUY else (0, quantity)
        key = position_key(row.segment, row.symbol, row.product)
        self._traded_at[key] = now
        at_least = self._traded_at_least[key]
        at_least[0] += bought
        at_least[1] += sold
        return Fill(key, bought, sold)

    def await_message(self, fill: Fill, now: float, *, is_young: bool = True) -> None:
        """Expect a position message for a fill. `is_young` says that it happened just now, so that
        a report may lack it; a fill that an order book shows may have happened at any time."""
        if is_young and fill.key is not None:
            self._young_at[fill.key] = now
        if self._is_report_pending:
            self._fills_meanwhile.append(fill)
        self._add_to_upper_bound(fill, now)

    def _add_to_upper_bound(self, fill: Fill, now: float) -> None:
        if fill.key is None:
            return
        if not self.awaits_messages:
            self.awaiting_since = now
        bought, sold = self._traded_at_most.get(fill.key, (0, 0))
        self._traded_at_most[fill.key] = (bought + fill.bought, sold + fill.sold)

    def _filled_in(self, row: OrderRow) -> int | None:
        """Return the filled units of an order's report; None when it does not have them in a form
        that can be read and believed. A complete order is filled wholly."""
        if self.is_odd(row):
            return None
        is_reported = "filled_quantity" not in row.missing
        if row.status is OrderStatus.COMPLETE and not (is_reported and row.filled_quantity):
            return row.quantity if row.quantity > 0 else None
        return row.filled_quantity if is_reported else None

    def _known_fill(self, number: str) -> int:
        """Return the filled units of an order that messages have reported."""
        return self._filled.get(number) or self._filled_before.get(number, 0)

    def _begin_day(self, today: int) -> None:
        """Drop, on a new day, the fills of earlier ones."""
        if self._today == today:
            return
        self._traded_at_least.clear()
        self._lacked_at_most.clear()
        self._young_at.clear()
        self._traded_at.clear()
        if self._filled:
            self._filled_before, self._filled = self._filled, {}
        self._today = today

    # --- position messages --------------------------------------------------------------------

    def apply_message(self, update: PositionUpdate) -> MessageEffect:
        """Take over a position message."""
        if self._is_report_pending:
            self._updates_meanwhile.append(update)
        key = self._key_of(update)
        if key is None:
            return MessageEffect(is_unidentified=True)
        row = self._rows.get(key)
        if row is not None and continues(update, row):
            return MessageEffect(changed=key if self._update_row(key, row, update) else None)
        if self._is_report_pending:
            return MessageEffect()  # it is looked at again with the report
        self._unlisted[key] = update
        self.unlisted_reads = 0
        return MessageEffect(is_unlisted=True)

    def _key_of(self, update: PositionUpdate) -> PositionKey | None:
        """Return the position that a message is about; None when it does not show which position
        has changed, or not how."""
        if not is_complete(update):
            return None
        key = position_key(update.segment, update.symbol, update.product)
        segment, symbol, product = key
        if symbol:
            return key if segment and product else None
        # The published message has no trading symbol: the token or the name has to identify it.
        fitting = [
            key
            for key, row in self._rows.items()
            if (key[0], key[2]) == (segment, product)
            # All contracts of an underlying share its name.
            and (row.token == update.token if update.token else row.name == update.name)
            and (update.token or not row.is_derivative)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _update_row(self, key: PositionKey, row: PositionRow, update: PositionUpdate) -> bool:
        changed = updated(row, update)
        if changed is None:
            return False
        self._rows[key] = changed
        self._valued.pop(key, None)
        return True

    # --- reports ------------------------------------------------------------------------------

    def begin_report(self) -> None:
        """Take note that a report is requested: what arrives from now on may not be in it."""
        self._is_report_pending = True
        self._unknown_at_request = self._unknown_fills
        self._updates_meanwhile.clear()
        self._fills_meanwhile.clear()
        self._priced_meanwhile.clear()

    def abandon_report(self) -> None:
        """Take note that the requested report does not come."""
        self._is_report_pending = False

    def apply_report(
        self,
        rows: Iterable[PositionRow],
        holdings: Mapping[str, Holding],
        *,
        requested_at: float,
        received_at: float,
    ) -> ReportEffect:
        """Take over the report that `begin_report` was about."""
        rows = list(rows)
        self._is_report_pending = False
        self._unknown_fills -= self._unknown_at_request
        self._expire_lower_bound(requested_at)
        before = self.positions
        self._holdings = holdings
        overruled = self._replace_rows(rows, received_at)
        self._replace_prices(rows)
        self._valued.clear()
        self._replace_upper_bound(requested_at)
        for fill in self._fills_meanwhile:
            self._add_to_upper_bound(fill, received_at)
        changed = dict.fromkeys(self._apply_waiting_messages())
        dropped = self._count_unlisted()
        for key, now in self.positions.items():
            if not _is_same(before.get(key), now):
                changed[key] = None
        return ReportEffect(list(changed), overruled, dropped)

    def _replace_upper_bound(self, requested_at: float) -> None:
        before, self._traded_at_most = self._traded_at_most, {}
        for key, row in self._rows.items():
            self._traded_at_most[key] = traded(row)
        lacked, self._lacked_at_most = self._lacked_at_most, {}
        for key, at in [*self._young_at.items()]:
            if requested_at >= at + REPORT_LAG_SECONDS:
                del self._young_at[key]
                continue
            reported = self._traded_at_most.get(key, (0, 0))
            bounds = (before.get(key, (0, 0)), lacked.get(key, (0, 0)))
            bought, sold = (max(sides) for sides in zip(*bounds, strict=True))
            if bought > reported[0] or sold > reported[1]:
                self._lacked_at_most[key] = (bought, sold)

    def _expire_lower_bound(self, requested_at: float) -> None:
        # By now the report is right: a position may have been converted to another product.
        for key, at in [*self._traded_at.items()]:
            if requested_at >= at + REPORT_LAG_SECONDS:
                del self._traded_at[key]
                self._traded_at_least.pop(key, None)

    def _replace_rows(self, rows: Iterable[PositionRow], received_at: float) -> list[Overruled]:
        before, self._rows = self._rows, {}
        self._by_instrument.clear()
        self._nameless.clear()
        ahead_since, self._ahead_since = self._ahead_since, {}
        overruled = []
        for key, row in by_key(rows).items():
            known = before.get(key)
            # The server that answers may be behind the one that sends the messages.
            if known is not None and is_ahead(known, row):
                since = ahead_since.get(key, received_at)
                if received_at - since < REPORT_LAG_SECONDS:
                    self._ahead_since[key] = since
                    row = known
                else:
                    lag = received_at - since
                    overruled.append(Overruled(key, lag, traded(row), traded(known)))
            self._rows[key] = row
            self._by_instrument.setdefault(instrument_of(row), []).append(key)
            if not (key[1] and key[0] in SEGMENTS) and not is_flat(row):
                self._nameless.add(key)
        return overruled

    def _replace_prices(self, rows: Iterable[PositionRow]) -> None:
        """Take over the report's prices, except those that a newer price has replaced."""
        prices = {instrument_of(row): row.last_price for row in rows}
        for instrument, price in prices.items():
            if is_price(price) and instrument not in self._priced_meanwhile:
                self._prices[instrument] = price
        for instrument in self._prices.keys() - prices.keys():
            del self._prices[instrument]

    def _apply_waiting_messages(self) -> list[PositionKey]:
        """Apply the messages that waited for a report or arrived while it was under way, and return
        the positions that they change. They may be in the report already, or not yet."""
        updates = [*self._unlisted.values(), *self._updates_meanwhile]
        self._unlisted.clear()
        changed = []
        for update in updates:
            key = self._key_of(update)
            row = self._rows.get(key) if key else None
            if key and row and continues(update, row):
                if self._update_row(key, row, update):
                    changed.append(key)
            elif key:
                self._unlisted[key] = update
        return changed

    def _count_unlisted(self) -> list[PositionKey]:
        """Count the reports that a message has waited for, and drop those that waited too long."""
        self.unlisted_reads = self.unlisted_reads + 1 if self._unlisted else 0
        if self.unlisted_reads < UNLISTED_READS:
            return []
        dropped = list(self._unlisted)
        self._unlisted.clear()
        self.unlisted_reads = 0
        return dropped


def _may_be(key: PositionKey, instrument: tuple[str, str]) -> bool:
    """Return whether a position with an incomplete instrument may be in this one."""
    segment, symbol = instrument
    return key[1] in (symbol, "") and (key[0] == segment or key[0] not in SEGMENTS)


def _is_same(before: Position | None, now: Position) -> bool:
    """Return whether nothing has changed but times and other fields of the report's row alone."""
    if before is None or traded(before.row) != traded(now.row):
        return False
    return msgspec.structs.replace(now, row=before.row) == before
