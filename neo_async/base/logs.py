"""The loggers of the package, and lines about one order request.

Users set levels and handlers by these names, so they do not change when a module moves. A formatter
finds `action`, `client_tag` and `order_number` on the record of a line about an order request; a
field that is not known is empty.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from neo_async.base.text import shown

ORDERS = "neo_async.orders"
JOURNAL = "neo_async.execution.journal"
RISK = "neo_async.risk.engine"
EXITS = "neo_async.exits"
PORTFOLIO = "neo_async.portfolio.portfolio"
MARKET_DATA = "neo_async.market_data"
FEEDS = "neo_async.feeds.market_feed"
SESSION = "neo_async.session.manager"
CALENDAR = "neo_async.calendar"
TRANSPORT = "neo_async.transport"
EXCHANGE = "neo_async.exchange"
KITE = "neo_async.kite"
BANKING = "neo_async.banking"


class Subject(NamedTuple):
    """The order request that a log line is about."""

    action: str
    client_tag: str = ""
    order_number: str = ""

    def __str__(self) -> str:
        marks = []
        if self.order_number:
            marks.append(f"order {shown(self.order_number)}")
        if self.client_tag:
            marks.append(f"tag {self.client_tag!r}")
        return f"{self.action} of {', '.join(marks)}" if marks else self.action


def log_order(log: logging.Logger, level: int, subject: Subject, text: str, *args: object) -> None:
    """Write one line: the subject, a colon, and `text` with its `args`, which may be untrusted
    text."""
    if log.isEnabledFor(level):
        words = (shown(arg) if isinstance(arg, str) else arg for arg in args)
        log.log(level, f"%s: {text}", subject, *words, extra=subject._asdict(), stacklevel=2)
