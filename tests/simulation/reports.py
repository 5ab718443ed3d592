"""What one program of orders found: its callers' outcomes, and the differences from the ledger."""

from __future__ import annotations

from collections import Counter

import msgspec


class Outcome(msgspec.Struct):
    """The outcome of one call, as its caller received it."""

    order_index: int
    """Which order of the program the call belongs to."""
    action: str
    """`place`, `modify` or `cancel`."""
    result: str
    """`ok`, `gave up` or the name of the error."""
    detail: str = ""
    order: str = ""
    """Order number, or the client tag where the call returned no number."""
    seconds: float = 0.0
    """Time from the call until its caller had the outcome."""
    was_unknown: bool = False
    """Whether a waiting caller got OutcomeUnknown after the resolution timeout, because no order
    book could be read."""


class Report(msgspec.Struct):
    """The counts of one program. Every count but those of calls and faults should be zero."""

    seed: int
    orders: int
    """Placements that were attempted."""
    accepted: int = 0
    """Orders in the exchange's ledger."""
    doubles: int = 0
    """Placements that arrived more than once, or became more than one order."""
    lost: int = 0
    """Orders in the ledger that the client does not have as accepted."""
    wrong: int = 0
    """Outcomes and order states that contradict the ledger."""
    unknown: int = 0
    """Requests without an outcome after the resolution timeout."""
    left_open: int = 0
    """Halts that ended with an open order, or after which one arrived."""
    late_cancels: int = 0
    """Cancels that reached the exchange later than `CANCEL_BOUND`, or never."""
    halts: int = 0
    """Halts of the program; 0 or 1."""
    nights: int = 0
    """Nights that passed in the program; 0 or 1."""
    slowest_cancel: float = 0.0
    """Longest time, in seconds, until the first cancel of a call or a halt reached the exchange."""
    broken: int = 0
    """Whether the program ended with an error, so that nothing could be compared."""
    leaks: int = 0
    """Tasks, connections and files that were not released."""
    overdue: int = 0
    """Waiting callers that got OutcomeUnknown: no order book could be read within a minute after
    the end of the resolution timeout."""
    slowest: float = 0.0
    """Longest time, in seconds, until a caller had its outcome."""
    outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    """Number of calls by action and outcome."""
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    """Number of injected faults by name."""
    problems: list[str] = []
    """One line for each difference that was found."""
    virtual_seconds: float = 0.0
    """Duration of the program on its virtual clock."""
    seconds: float = 0.0
    """Real duration of the program."""

    @property
    def is_good(self) -> bool:
        return not self.problems

    def add_problem(self, count: str, text: str) -> None:
        """Increase the count of that name, and keep the line that explains it."""
        setattr(self, count, getattr(self, count) + 1)
        self.problems.append(f"{count}: {text}")
