"""The loggers of the package, the account on each line, and lines about one order request.

Users set levels and handlers by these names, so they do not change when a module moves. Every line
of a client begins with the client code of its account, and has it as the field `ucc` of the record:
two clients in one process are distinguished in any format. A formatter finds `action`, `client_tag`
and `order_number` on the record of a line about an order; a field that is not known is empty.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

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

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class AccountLogger(_Adapter):
    """A logger whose lines begin with an account, and have it as the field `ucc`."""

    def __init__(self, logger: logging.Logger, ucc: str) -> None:
        super().__init__(logger, {"ucc": ucc})
        self._prefix = shown(ucc)
        # Orders ask for it: the adapter's own method would be one more call.
        self.isEnabledFor = logger.isEnabledFor  # type: ignore[method-assign]

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return f"{self._prefix}: {msg}", kwargs


Log: TypeAlias = logging.Logger | AccountLogger


def logger_of(name: str, ucc: str = "") -> Log:
    """Return the logger of that name for the lines of an account; the plain logger for lines that
    belong to none."""
    log = logging.getLogger(name)
    # A line without arguments is not formatted, so a percent sign could not be escaped for both.
    return AccountLogger(log, ucc.replace("%", "")) if ucc else log


class Subject(NamedTuple):
    """The order request, or the event in an order's life, that a log line is about."""

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


def log_order(
    log: Log,
    level: int,
    subject: Subject,
    text: str,
    *args: object,
    fields: Mapping[str, object] | None = None,
) -> None:
    """Write one line: the subject, a colon, and `text` with its `args`, which may be untrusted
    text. `fields` are more fields of the record."""
    if log.isEnabledFor(level):
        words = (shown(arg) if isinstance(arg, str) else arg for arg in args)
        extra = {**subject._asdict(), **(fields or {})}
        log.log(level, f"%s: {text}", subject, *words, extra=extra, stacklevel=2)
