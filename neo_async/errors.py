"""The exceptions of the package, by who is to blame.

    NeoError
    ├── UsageError                 the call cannot be right; nothing was sent
    │   ├── InvalidField           a value breaks a rule of its field
    │   │   └── InvalidOrder       a field of an order breaks a rule
    │   ├── NotLoggedIn            a call before login or after logout
    │   ├── Halted                 the kill switch is on: no order is placed or changed
    │   └── RiskRefused            the order would break one of your own risk limits
    │       ├── SegmentNotAllowed
    │       ├── ProductNotAllowed
    │       ├── QuantityLimit      units of one order
    │       ├── ValueLimit         rupees of one order
    │       ├── PriceLimit         too far from the last price
    │       ├── OrderRateLimit     orders per minute
    │       ├── OpenOrdersLimit
    │       ├── PositionLimit      net quantity in one instrument
    │       └── LossLimit          the day's loss, in rupees
    ├── BrokerError                the broker answered, and refused
    │   ├── LoginFailed
    │   │   ├── WrongTotp          wrong secret, code, UCC, mobile number or access token
    │   │   ├── WrongMpin
    │   │   └── ClockSkew          this machine's clock is more than one TOTP step off
    │   ├── SessionEnded           the login is no longer valid and could not be renewed
    │   ├── StaticIpRefused        orders are not allowed from this IP address
    │   ├── RateLimited            too many requests, and no time left to wait
    │   ├── ServerError            5xx: the broker's own fault
    │   └── Rejected               an order or request was refused
    │       ├── InsufficientFunds
    │       ├── OrderAlreadyFinal  modify or cancel of an order that is done
    │       ├── DuplicateTag       an order with this client tag exists already
    │       └── BankRejected       the bank's virtual account service refused
    ├── TransportError             the network failed
    │   ├── NotSent                no byte was handed to the socket: safe to send again
    │   │   └── BreakerOpen        the host's circuit breaker is open: nothing was tried
    │   └── AnswerLost             bytes were handed over, no complete answer came back
    ├── OutcomeUnknown             an order request may or may not have taken effect
    │   └── RefundUnknown          a refund may or may not have been initiated
    ├── NotAccepted                an order request was sent, and proved to have had no effect
    ├── JournalFailed              the journal cannot be opened or written; nothing was sent
    ├── PositionOpen               a square-off has not closed a position
    ├── StoreFailed                the store of received credits cannot be opened or written
    └── ProtocolError              an answer arrived that is not what the protocol promises
        └── UnreadableCredit       one entry of a batch of credits cannot be read

Messages name what was wrong, with the value, and what would be right. The same facts are
attributes, so that no program has to parse a sentence. No message or `repr` holds a secret.
"""

from __future__ import annotations

from collections.abc import Awaitable, Set
from typing import Any, ClassVar

from neo_async.base.india import in_india
from neo_async.base.text import shown

BODY_EXCERPT = 300
"""Longest excerpt of a broker's answer in an error, in characters."""


class NeoError(Exception):
    r"""Root of everything this package raises on purpose.

    Its message is always one line: a line end in text of the broker is shown as `\n`.
    """

    def __str__(self) -> str:
        return shown(super().__str__())


# --- misuse of the client, and its own limits --------------------------------------------------


class UsageError(NeoError, ValueError):
    """The call cannot be right, whatever the broker would answer. Nothing was sent."""


class InvalidField(UsageError):
    """A value breaks a rule of its field."""

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"{field}={value!r}: {rule}")
        self.field = field
        self.value = value
        self.rule = rule


class InvalidOrder(InvalidField):
    """A field of an order breaks a rule."""


class NotLoggedIn(UsageError):
    """The call needs a login, and there is none."""


class Halted(UsageError):
    """The kill switch is on: no order is placed or changed until `NeoClient.resume_orders()` is
    called. A client with a journal stays halted after a restart of the process."""

    def __init__(self, reason: str, *, since: float, from_earlier_process: bool = False) -> None:
        clock = in_india(since)
        began = f"{clock:%Y-%m-%d %H:%M:%S}" if from_earlier_process else f"{clock:%H:%M:%S}"
        by_whom = " by an earlier process" if from_earlier_process else ""
        super().__init__(
            f"halted since {began} IST{by_whom} ({reason}): no order is placed or changed until "
            "neo.resume_orders() is called"
        )
        self.reason = reason
        self.since = since
        """Unix seconds at which orders were halted."""
        self.from_earlier_process = from_earlier_process
        """Whether the halt was read from the journal of an earlier process."""

    def copy(self) -> Halted:
        """Return the same halt as a new exception, so that each raise has its own traceback."""
        return Halted(self.reason, since=self.since, from_earlier_process=self.from_earlier_process)


class RiskRefused(UsageError):
    """An order, or a change of one, would break a limit of `RiskLimits`; or the data for the check
    is missing, and the message names the remedy."""

    setting: ClassVar[str] = "limit"
    """Name of the setting in `RiskLimits`."""

    def __init__(self, limit: object, value: object, reason: str) -> None:
        shown = ", ".join(sorted(limit)) if isinstance(limit, Set) else limit
        super().__init__(f"{self.setting}={shown}: {reason}")
        self.limit = limit
        self.value = value
        """The value compared with the limit; None when it is not known."""
        self.reason = reason


class SegmentNotAllowed(RiskRefused):
    """The order is for a segment that is not allowed."""

    setting = "segments"


class ProductNotAllowed(RiskRefused):
    """The order is for a product that is not allowed."""

    setting = "products"


class QuantityLimit(RiskRefused):
    """An order has more units than are allowed."""

    setting = "max_order_quantity"


class ValueLimit(RiskRefused):
    """An order is worth more rupees than are allowed."""

    setting = "max_order_notional"


class PriceLimit(RiskRefused):
    """A limit or trigger price is further from the last price than is allowed."""

    setting = "max_price_deviation_pct"


class OrderRateLimit(RiskRefused):
    """More orders would be placed within a minute than are allowed."""

    setting = "max_orders_per_minute"


class OpenOrdersLimit(RiskRefused):
    """More orders would be open at once than are allowed."""

    setting = "max_open_orders"


class PositionLimit(RiskRefused):
    """The net position in an instrument could become larger than is allowed, if every open order
    on one side were filled."""

    setting = "max_net_position"


class LossLimit(RiskRefused):
    """The loss of the day has reached the limit; only orders that close a position are sent."""

    setting = "max_daily_loss"


# --- the broker answered, and refused ---------------------------------------------------------


class BrokerError(NeoError):
    """The broker answered, and refused. `code` is the broker's `stCode`, or the bank's code."""

    def __init__(
        self, text: str, *, code: int | str | None = None, status: int | None = None, body: str = ""
    ) -> None:
        details = []
        if code is not None:
            details.append(f"code {code}")
        if status is not None:
            details.append(f"HTTP {status}")
        super().__init__(f"{text} ({', '.join(details)})" if details else text)
        self.text = text
        self.code = code
        self.status = status
        self.body = body
        """Start of the raw answer, with credentials removed."""


class LoginFailed(BrokerError):
    """The broker refused the login, or gave no order book to reconcile the journal with."""


class WrongTotp(LoginFailed):
    """The first step was refused: TOTP secret or code, UCC, mobile number or access token."""


class WrongMpin(LoginFailed):
    """The second step was refused: the MPIN is wrong."""


class ClockSkew(LoginFailed):
    """This machine's clock is more than one TOTP step away from the broker's."""

    def __init__(
        self, skew: float, *, code: int | str | None = None, status: int | None = None
    ) -> None:
        super().__init__(
            f"TOTP code refused, and this machine's clock is {abs(skew):.0f} s "
            f"{'ahead of' if skew > 0 else 'behind'} the broker's (30 s are tolerated): "
            "synchronise the clock",
            code=code,
            status=status,
        )
        self.skew = skew
        """Seconds by which the local clock is ahead of the broker's; negative when behind."""


class SessionEnded(BrokerError):
    """The login is no longer valid, and renewing it did not help."""


class StaticIpRefused(BrokerError):
    """The broker allows orders only from the registered static IP, and from the address that
    logged in (codes 100008 and 1037)."""


class RateLimited(BrokerError):
    """HTTP 429, and the deadline of the call does not allow to wait for the end of the pause."""

    def __init__(
        self, text: str, *, retry_after: float | None, body: str = "", was_sent: bool = True
    ) -> None:
        answered = 429 if was_sent else None
        super().__init__(text, code=answered, status=answered, body=body)
        self.retry_after = retry_after
        """Seconds to wait: the broker's Retry-After, or the rest of a pause; None if not given."""
        self.was_sent = was_sent
        """Whether the broker answered this request with 429. False when the client did not send it,
        because an earlier 429 still holds it back or a daily quota is used up."""


class ServerError(BrokerError):
    """The broker's server failed (HTTP 5xx, or a code with that meaning)."""


class Rejected(BrokerError):
    """The request was understood and refused."""


class InsufficientFunds(Rejected):
    """The account lacks cash, margin or limits."""


class OrderAlreadyFinal(Rejected):
    """The order is complete, cancelled or rejected; it cannot be changed.

    A broker that does not find an order proves nothing: an order that was just placed may appear
    seconds later. That is a plain Rejected, unless this client has seen the order's final state.
    """


class DuplicateTag(Rejected):
    """The broker has already seen an order with this client tag today."""


class BankRejected(Rejected):
    """The bank's virtual account service understood a request and refused it."""

    def __init__(
        self,
        text: str,
        *,
        refusal: str,
        field: str = "",
        code: str | None = None,
        status: int | None = None,
        body: str = "",
    ) -> None:
        super().__init__(f"{field}: {text}" if field else text, code=code, status=status, body=body)
        self.refusal = refusal
        """Reason of the refusal: a `neo_async.banking.Refusal`."""
        self.field = field
        """The bank's name of the field at fault; empty when not given."""


# --- the network failed -----------------------------------------------------------------------


class TransportError(NeoError):
    """A connection could not be made, broke, or stayed silent until the deadline."""


class NotSent(TransportError):
    """The request failed before any byte of it was handed to a socket. It cannot have had any
    effect, and sending it again is safe."""


class BreakerOpen(NotSent):
    """The host failed too often in a row: its circuit breaker is open, and the call failed at
    once."""

    def __init__(
        self, breaker: str, *, open_for: float, last_failure: str, probe_in: float
    ) -> None:
        super().__init__(
            f"{breaker}: down for {open_for:.1f} s (last: {last_failure}); nothing was sent, the "
            f"next try is let through in {probe_in:.2f} s"
        )
        self.breaker = breaker
        """Name of the breaker: orders or reads at a host."""
        self.open_for = open_for
        """Seconds since the breaker opened."""
        self.last_failure = last_failure
        self.probe_in = probe_in
        """Seconds until a call is tried again."""


class AnswerLost(TransportError):
    """The request was handed to a socket, and no complete answer came back."""

    def __init__(self, text: str, *, is_timeout: bool = False) -> None:
        super().__init__(text)
        self.is_timeout = is_timeout
        """Whether the deadline passed, rather than the connection breaking."""


class OutcomeUnknown(NeoError):
    """An order request was sent and its effect could not be established.

    It must not be sent again blindly: await `outcome()`, or look for `client_tag` (or the order
    number) in the order book. `__cause__` is the error that the request met.
    """

    def __init__(
        self,
        action: str,
        *,
        client_tag: str = "",
        order_number: str = "",
        reason: str,
        resolution: Awaitable[Any] | None = None,
        book: str = "order book",
    ) -> None:
        mark = f"tag {client_tag!r}" if client_tag else f"number {order_number!r}"
        super().__init__(
            f"no usable answer to {action} ({reason}); it may have taken effect: "
            f"look for {mark} in the {book} before sending anything again"
        )
        self.action = action
        self.client_tag = client_tag
        self.order_number = order_number
        self.reason = reason
        self.resolution = resolution

    async def outcome(self) -> Any:
        """Wait until the outcome of the request is known, and return the Order.

        Raises NotAccepted when the request proved to have had no effect, OrderAlreadyFinal when it
        came too late, and OutcomeUnknown when nothing proved either by three minutes after the
        resolution timeout, or a logout ended the search.
        """
        if self.resolution is None:
            raise self
        return await self.resolution


class RefundUnknown(OutcomeUnknown):
    """A refund was sent, and whether the bank has initiated it could not be established.

    `refund_status(idempotency_key=…)` reads it again; `refund(…, idempotency_key=…)` with the same
    key and the same values looks it up first and cannot pay twice.
    """

    def __init__(self, *, idempotency_key: str, reason: str) -> None:
        NeoError.__init__(
            self,
            f"no usable answer to refund ({reason}); it may have been initiated: ask for its "
            f"status by idempotency key {idempotency_key!r}, and use no other key for it",
        )
        self.action = "refund"
        self.client_tag = ""
        self.order_number = ""
        self.idempotency_key = idempotency_key
        self.reason = reason
        self.resolution = None


class NotAccepted(NeoError):
    """An order request was sent, its answer was lost, and it is proved to have had no effect.

    There is no trace of it in a complete order book requested after the resolution timeout, nor in
    the histories of orders whose tag was overwritten. Sending it again is safe, unless the broker
    took longer than the resolution timeout: such an order is reported by `Orders.on_late_order`.
    """

    def __init__(
        self,
        action: str,
        *,
        client_tag: str = "",
        order_number: str = "",
        resolution_timeout: float,
        book: str = "order book",
        unless: str = "the broker takes longer than that",
    ) -> None:
        mark = f"tag {client_tag!r}" if client_tag else f"number {order_number!r}"
        super().__init__(
            f"{action} was sent, but had no effect: {resolution_timeout:g} s later the {book} "
            f"shows no trace of it at {mark}; unless {unless}, sending it again is safe"
        )
        self.action = action
        self.client_tag = client_tag
        self.order_number = order_number
        self.resolution_timeout = resolution_timeout


class JournalFailed(NeoError):
    """The journal cannot be opened or written. Nothing was sent."""


class StoreFailed(NeoError):
    """The store of received credits cannot be opened, read or written. Credits that are not in it
    yet will be delivered again."""


class PositionOpen(NeoError):
    """A position is still open after a square-off. `net` is what is left of it, in units, as the
    positions report showed last; `reason` is why it could not be closed."""

    def __init__(self, segment: str, symbol: str, product: str, net: int, *, reason: str) -> None:
        super().__init__(f"{symbol} ({segment}, {product}) is not flat, net {net}: {reason}")
        self.segment = segment
        self.symbol = symbol
        self.product = product
        self.net = net
        self.reason = reason


class ProtocolError(NeoError):
    """The answer is not what the protocol promises: not JSON, cut off, or of another shape."""

    def __init__(self, problem: str, *, status: int | None = None, body: str = "") -> None:
        where = f" (HTTP {status})" if status is not None else ""
        excerpt = f": {body[:BODY_EXCERPT]!r}" if body else ""
        super().__init__(f"{problem}{where}{excerpt}")
        self.problem = problem
        self.status = status
        self.body = body


class UnreadableCredit(ProtocolError):
    """An entry of a batch of credits cannot be read as money that came in: its amount is no
    number, zero, or negative (a reversal), or it has no reference.

    Earlier credits of the batch were delivered. This one and later ones do not count as received,
    and the batch is not acknowledged, until the caller calls `Credits.skip` with this error.
    """

    def __init__(self, problem: str, *, reference: str, entry: str) -> None:
        name = f"credit {reference}" if reference else "a credit without a reference"
        super().__init__(f"{name}: {problem}", body=entry)
        self.reference = reference
        """The bank's transaction reference; empty when the entry has none."""
        self.entry = entry
        """The whole entry, as JSON."""
