"""Compares what a client believes about its orders with the exchange's ledger.

Invariants, each checked for every request and order of a program:

1. A placement is accepted and exactly one order of that number, or no order at all.
2. Each placement arrived once: nothing is sent again.
3. Modifications that were reported accepted are those that the ledger counts, and an accepted
   cancel means a cancelled order; no other order is cancelled.
4. Status, fills, average, quantity, price and tag of every `Order` are those of the ledger.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from neo_async import NeoClient, Order, OrderStatus, OutcomeUnknown, Validity
from neo_async.exchange.engine.types import OrderRecord
from neo_async.wire.tags import matches
from tests.simulation.reports import Outcome, Report

AVERAGE_TOLERANCE = 0.005
"""Rupees by which average prices may differ: the wire has two decimals."""


class LedgerComparison:
    """Compares outcomes and orders of one client with the ledger, and reports the differences."""

    def __init__(
        self,
        report: Report,
        ledger: Sequence[OrderRecord],
        neo: NeoClient,
        *,
        has_night: bool,
        today: str,
    ) -> None:
        self._report = report
        self._has_night = has_night
        """Whether orders expired with their day, so that no report of them exists any more."""
        self._today = today
        """The first six digits of today's order numbers."""
        self._ledger = ledger
        self._by_tag = Counter(record.client_tag for record in ledger)
        self._by_number = {record.number: record for record in ledger}
        self._neo = neo

    def check_journal(self, journal: Path) -> None:
        """Compare every request in the journal, also those whose callers gave up."""
        self._report.accepted = len(self._ledger)
        accepted: dict[str, Counter[str]] = {}
        refused: dict[str, Counter[str]] = {}
        lapsed: dict[str, Counter[str]] = {}
        accepted_tags = set()
        for row in _intents(journal):
            request = f"{row['action']} {row['client_tag'] or row['order_number']}"
            outcome = row["outcome"]
            if outcome in (None, "unknown"):
                self._report.add_problem("unknown", f"{request}: {row['reason']}")
            elif row["action"] == "place":
                accepted_tags |= self._check_placement(request, row)
            else:
                counts = {"accepted": accepted, "lapsed": lapsed}.get(outcome, refused)
                counts.setdefault(row["order_number"], Counter())[row["action"]] += 1
        for record in self._ledger:
            if record.client_tag not in accepted_tags:
                self._report.add_problem(
                    "lost", f"{record.number} {record.client_tag} {record.status}"
                )
            if record.arrivals != 1 or self._by_tag[record.client_tag] != 1:
                self._report.add_problem(
                    "doubles", f"{record.client_tag} arrived {record.arrivals} times"
                )
            number = record.number
            self._check_changes(
                record, accepted.get(number, Counter()), lapsed.get(number, Counter())
            )

    def _check_placement(self, request: str, row: sqlite3.Row) -> set[str]:
        """Return the placement's tag, if it was accepted."""
        tag, outcome = row["client_tag"], row["outcome"]
        numbers = [record.number for record in self._ledger if record.client_tag == tag]
        if outcome == "accepted":
            if numbers != [row["order_number"]]:
                number = row["order_number"]
                self._report.add_problem("wrong", f"{request} is {number}, in the ledger {numbers}")
            return {tag}
        if numbers and not (self._has_night and outcome == "lapsed"):
            self._report.add_problem("wrong", f"{request}: {outcome}, in the ledger {numbers}")
        return {tag} if numbers else set()

    def _check_changes(
        self, record: OrderRecord, accepted: Counter[str], lapsed: Counter[str]
    ) -> None:
        modifications = record.request_id - 1
        # A request in flight when its day ended may have taken effect: no book shows it any more.
        unproved = lapsed["modify"] if self._has_night else 0
        if not accepted["modify"] <= modifications <= accepted["modify"] + unproved:
            self._report.add_problem(
                "wrong",
                f"{record.number}: {accepted['modify']} modifications were reported accepted, "
                f"the ledger has {modifications}",
            )
        is_cancelled = record.status is OrderStatus.CANCELLED
        if accepted["cancel"] and not is_cancelled:
            self._report.add_problem(
                "wrong", f"{record.number} was reported cancelled: {record.status}"
            )
        ends_by_itself = self._has_night or record.validity is Validity.IOC
        if is_cancelled and not accepted["cancel"] and not ends_by_itself:
            self._report.add_problem(
                "wrong", f"{record.number} is cancelled, and no cancel took effect"
            )

    def check_callers(self, outcomes: Sequence[Outcome]) -> None:
        """Compare the outcomes that callers received, where they waited for them."""
        # No book shows a request whose day is over: OutcomeUnknown is then the right outcome.
        unresolvable = OutcomeUnknown.__name__ if self._has_night else ""
        for one in outcomes:
            tag = f"l{one.order_index}_"
            if one.action == "place" and one.result == "ok":
                record = self._by_number.get(one.order)
                if record is None or not record.client_tag.startswith(tag):
                    self._report.add_problem("wrong", f"order {one.order_index} got {one.order}")
            elif one.action == "place" and one.result not in ("gave up", unresolvable):
                tags = [each for each in self._by_tag if each.startswith(tag)]
                if tags:
                    self._report.add_problem(
                        "wrong", f"order {one.order_index} got {one.result}: {tags}"
                    )
            elif one.result == "OrderAlreadyFinal" and not self._is_final(one.order):
                self._report.add_problem("wrong", f"{one.order} was reported final")

    def _is_final(self, number: str) -> bool:
        return self._by_number[number].status.is_final

    def check_orders(self) -> None:
        """Compare the state of every order of the client."""
        for record in self._ledger:
            order = self._neo._engine.cache.get(record.number)
            if self._has_night and record.number[:6] < self._today:
                # No book shows any more how it ended; but the client must know that it is over.
                if order is not None and not order.is_final:
                    self._report.add_problem("wrong", f"{record.number} is over, seen as {order!r}")
            elif order is None:
                self._report.add_problem("lost", f"{record.number} is not in the order cache")
            else:
                self._check_order(record, order)

    def _check_order(self, record: OrderRecord, order: Order) -> None:
        expected = {
            "status": record.status,
            "filled": record.filled_quantity,
            "average": round(record.average_price / 100, 4),
            "quantity": record.quantity,
            "price": record.price / 100,
            "tag": True,
        }
        seen = {
            "status": order.status,
            "filled": order.filled_quantity,
            "average": round(order.average_price, 4),
            "quantity": order.quantity,
            "price": float(order.price or 0),
            "tag": matches(order.client_tag, record.client_tag),
        }
        if self._has_night and order.is_presumed_over and record.status.is_final:
            # It is known to be over, but not how: no report of a later day contains it.
            expected |= {name: seen[name] for name in ("status", "average", "quantity", "price")}
            expected["filled"] = min(order.filled_quantity, record.filled_quantity)
        if abs(expected["average"] - seen["average"]) <= AVERAGE_TOLERANCE:
            seen["average"] = expected["average"]
        for name, value in expected.items():
            if seen[name] != value:
                self._report.add_problem(
                    "wrong", f"{record.number}: {name} is {value}, seen as {seen[name]}"
                )


def _intents(journal: Path) -> list[sqlite3.Row]:
    with contextlib.closing(sqlite3.connect(journal)) as file:
        file.row_factory = sqlite3.Row
        return file.execute("SELECT * FROM intents").fetchall()
