"""The broker's service without its sockets: a call in, a reply out.

One table holds which path goes where, and what a caller needs to show for it. Trading calls live
below the base URL only, which has a path of its own: a client that does not follow the base URL of
its login answer fails here, too. Everything else is served at the root and below the base URL,
since clients log in at either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import NamedTuple, TypeVar

from neo_async.base.india import date_of, in_india
from neo_async.config import RateLimits
from neo_async.exchange.engine.types import NewOrder, Refusal
from neo_async.exchange.faults.settings import Calls
from neo_async.exchange.rest import order_rows, portfolio_rows, replies
from neo_async.exchange.rest.fields import Row, rupees
from neo_async.exchange.rest.logins import (
    DATA_CENTER,
    FieldMissing,
    Login,
    LoginRefused,
    Logins,
)
from neo_async.exchange.rest.market_data import MarketData
from neo_async.exchange.rest.replies import Reply
from neo_async.exchange.rest.requests import (
    MarginForm,
    read_change,
    read_form,
    read_order_type,
    read_place,
    read_price,
    read_product,
    read_quantity,
    read_segment,
    read_side,
)
from neo_async.exchange.rest.scrip_files import FOLDER, ScripFiles
from neo_async.exchange.rest.services import Call, ErrorResponses, LongAnswer
from neo_async.exchange.rest.settings import ENDED_SESSION_TEXTS, BrokerSettings
from neo_async.exchange.rest.throttle import Throttle, Throttled
from neo_async.exchange.venue import Venue
from neo_async.wire.orders import CancelForm, HistoryForm, ModifyForm

T = TypeVar("T")


_LOGIN_PATHS = (
    ("/login/1.0/tradeApiLogin", "/login/1.0/tradeApiValidate"),
    *(
        (f"{older}/login/v6/totp/login", f"{older}/login/v6/totp/validate")
        for older in ("/login/1.0", "/apim/login/2.0", "/api/1.0")
    ),
)
"""Paths of both login steps: today's, and those of older clients."""

_LOGINS = frozenset(path for steps in _LOGIN_PATHS for path in steps)

_OLD_PREFIXES = (
    "/Orders/2.0",
    "/apim/orders/2.0",
    "/apim/order/2.0",
    "/Portfolio/1.0",
    "/apim/portfolio/2.0",
)
"""Older clients put one of these before the paths of today."""

_DUPLICATE = 32
_OLD_DUPLICATE = "Put Order Response : Client OrderID already exists"

_ONE_ORDER = "/quick/user/orders/"
_CHECK_MARGIN = "/quick/user/check-margin"
_QUOTES = (
    "/script-details/1.0/quotes/neosymbol/",
    "/apim/quotes/1.0/quotes/neosymbol/",
    "/apim/quotes/2.0/quotes/neosymbol/",
)
"""Paths of the quotes, which the instruments follow."""


class Guard(Enum):
    OPEN = "needs nothing"
    APPLICATION = "needs the access token of an application"
    TRADE_LOGIN = "needs the token and sid of a trade login"


class _Route(NamedTuple):
    answer: LongAnswer
    guard: Guard
    is_order: bool = False


class Broker:
    def __init__(
        self,
        *,
        venue: Venue,
        logins: Logins,
        throttle: Throttle,
        settings: BrokerSettings,
        scrip_files: ScripFiles,
        market_data: MarketData,
        root_url: str,
        base_path: str,
        feed_url: str,
        realtime_url: str,
    ) -> None:
        self._venue = venue
        self._logins_service = logins
        self._throttle = throttle
        self.settings = settings
        """Rules of logging in and of placing orders; may be replaced at any time."""
        self._scrip_files = scrip_files
        self._market_data = market_data
        self._root_url = root_url
        self._base_path = base_path
        self._config = replies.json(
            {
                "data": {
                    "configs": {
                        f"{DATA_CENTER}_broadcast_source": "sh",
                        f"{DATA_CENTER}_sh_broadcast_endpoint": feed_url,
                        f"{DATA_CENTER}_sh_interactive_endpoint": realtime_url,
                    }
                }
            }
        )
        self._base_url = replies.json({"data": {"baseURL": f"{root_url}{base_path}"}})
        self._root_routes, self._base_routes = self._make_routes()
        self.error_responses = ErrorResponses(
            replies.throttled(RateLimits().orders), replies.failed
        )

    def answer(self, call: Call) -> Reply | Awaitable[Reply]:
        try:
            return self._engine(call)
        except Refusal as refusal:
            reply = replies.refused(refusal)
            return reply._replace(status=200) if self.settings.refusals_as_200 else reply
        except Throttled as throttled:
            return replies.throttled(throttled.limit)
        except LoginRefused as refused:
            if self.settings.login_failures_as_200:
                return replies.login_failed(refused.status, refused.text)
            return replies.login_refused(refused.status, refused.text)
        except FieldMissing as missing:
            return replies.field_missing(missing.name)

    def kind(self, method: str, path: str) -> Calls:
        """Return the kind of call, which decides the faults it meets."""
        if path.removeprefix(self._base_path) in _LOGINS:
            return "logins"
        routes = (self._methods_at(path) or {}).values()
        return "orders" if any(route.is_order for route in routes) else "reads"

    # --- from a path to an answer -------------------------------------------------------------

    def _make_routes(self) -> tuple[dict[str, dict[str, _Route]], dict[str, dict[str, _Route]]]:
        """Return the routes by path and method: those at the root of the server, and those below
        the base URL."""

        def order(answer: Callable[[Call], Reply]) -> dict[str, _Route]:
            return {"POST": _Route(answer, Guard.TRADE_LOGIN, is_order=True)}

        def report(method: str, answer: Callable[[Call], Reply]) -> dict[str, _Route]:
            return {method: _Route(answer, Guard.TRADE_LOGIN)}

        # The broker serves these on the login host too: they need no login.
        public: dict[str, LongAnswer] = {
            "/script-details/1.0/masterscrip/file-paths": self._file_paths,
            "/Files/1.0/masterscrip/v2/file-paths": self._file_paths,
            "/apim/files/2.0/masterscrip/v1/file-paths": self._file_paths,
            **dict.fromkeys(_QUOTES, self._quotes),
            "/market-data/1.0/watchlist/expiries": self._expiries,
            "/market-data/1.0/watchlist/option-chain": self._chain,
            "/market-data/1.0/historical/details": self._candles,
        }
        data = {path: {"GET": _Route(answer, Guard.APPLICATION)} for path, answer in public.items()}
        root = data | {
            **{
                path: {"POST": _Route(answer, Guard.OPEN)}
                for first, second in _LOGIN_PATHS
                for path, answer in ((first, self._login), (second, self._validate))
            },
            "/algo-user/v5/get-base-url": {"GET": _Route(lambda _: self._base_url, Guard.OPEN)},
            "/login/1.0/get-client-ip": report("GET", self._client_ip),
            "/5config/config": {"GET": _Route(lambda _: self._config, Guard.OPEN)},
        }
        base = root | {
            "/quick/order/rule/ms/place": order(self._place),
            "/quick/order/vr/modify": order(self._modify),
            "/quick/order/cancel": order(self._cancel),
            "/quick/order/bo/exit": order(self._exit),
            "/quick/order/co/exit": order(self._exit),
            "/quick/order/history": report("POST", self._history),
            "/quick/user/orders": report("GET", self._orders),
            _ONE_ORDER: report("GET", self._one_order),
            "/quick/user/trades": report("GET", self._trades),
            "/quick/user/positions": report("GET", self._positions),
            "/portfolio/v2/positions": report("GET", self._positions_with_price),
            "/portfolio/v1/holdings": report("GET", self._holdings),
            "/quick/user/limits": report("POST", self._limits),
            _CHECK_MARGIN: report("POST", self._check_margin),
            "/apim/login/2.0/logout": report("POST", self._logout),
            "/registration/subscription": report("GET", self._registration),
        }
        return root, base

    def _engine(self, call: Call) -> Reply | Awaitable[Reply]:
        methods = self._methods_at(call.path)
        if methods is None:
            if call.method == "GET" and call.path.startswith(f"{FOLDER}/"):
                return self._file(call)
            return replies.gateway_report(404, "Not Found", f"no service at {call.path}")
        route = methods.get(call.method)
        if route is None:
            allowed = ", ".join(methods)
            return replies.gateway_report(405, "Method Not Allowed", f"{call.path} takes {allowed}")
        if route.guard is Guard.TRADE_LOGIN:
            login = self._logins_service.authorise(
                call.headers.get("Sid", ""),
                call.headers.get("Auth", ""),
                call.time,
            )
            if login is None:
                raise self._ended_session(call.path)
            if route.is_order:
                self._check_address(call.client_ip, login)
            account = login.account
        elif route.guard is Guard.APPLICATION:
            known = self._logins_service.account_of(call.headers.get("Authorization", ""))
            if known is None:
                raise Refusal(401, "Invalid access token", http_status=401)
            account = known
        else:
            # Logging in is not metered: until it succeeds, there is no account to charge.
            return route.answer(call)
        self._throttle.admit(account.ucc, call.wall_time, is_order=route.is_order)
        call.ucc = account.ucc
        return route.answer(call)

    def _methods_at(self, path: str) -> dict[str, _Route] | None:
        if not path.startswith(f"{self._base_path}/"):
            return self._root_routes.get(_quotes_path(path) or path)
        tail = path[len(self._base_path) :]
        methods = self._base_routes.get(tail)
        if methods is not None:
            return methods
        for prefix in _OLD_PREFIXES:
            if tail.startswith(f"{prefix}/"):
                tail = tail[len(prefix) :]
                break
        if tail.startswith(_ONE_ORDER):
            tail = _ONE_ORDER
        return self._base_routes.get(_quotes_path(tail) or tail)

    def _ended_session(self, path: str) -> Refusal:
        """Return the refusal of a call whose session has ended."""
        code = self.settings.ended_session_code
        is_margin = code == 100022 and path.endswith(_CHECK_MARGIN)
        stat = "error in neo-login-check-api" if is_margin else "Not_Ok"
        return Refusal(code, ENDED_SESSION_TEXTS[code], http_status=403, stat=stat)

    def _check_address(self, address: str, login: Login) -> None:
        """Apply the rule of static addresses, where it is in force."""
        allowed = self.settings.static_ips
        if allowed is None:
            return
        if address not in allowed:
            raise Refusal(100008, "unauthorized", http_status=403)
        if address != login.client_ip:
            # The broker's own spelling.
            raise Refusal(1037, "session ip doesnt match with reqest ip", http_status=403)

    # --- login --------------------------------------------------------------------------------

    def _login(self, call: Call) -> Reply:
        _require_fin_key(call)
        authorization = call.headers.get("Authorization", "")
        data = self._logins_service.login(authorization, call.body, call.time, call.wall_time)
        return replies.json({"data": data})

    def _validate(self, call: Call) -> Reply:
        _require_fin_key(call)
        data = self._logins_service.validate(
            call.headers.get("Authorization", ""),
            call.headers.get("sid", ""),
            call.headers.get("Auth", ""),
            call.body,
            call.time,
            call.client_ip,
        )
        return replies.json({"data": data})

    def _logout(self, call: Call) -> Reply:
        self._logins_service.end(call.headers.get("Sid", ""))
        return replies.json({"data": {"status": "success"}})

    def _client_ip(self, call: Call) -> Reply:
        time = f"{in_india(call.time):%Y-%m-%d %H:%M:%S.%f}"[:-3]
        content = {"data": [{"ip": call.client_ip, "time": time}]}
        # Success is 1000 here, and only here.
        return replies.json({**content, "stCode": 1000, "status": "success"})

    def _registration(self, _: Call) -> Reply:
        """Answer the static addresses on record. The broker's shape is not published; this one is
        ours."""
        primary, secondary = (*(self.settings.static_ips or ()), "", "")[:2]
        status = "ACTIVE" if primary else "INACTIVE"
        content = {"primaryIp": primary, "secondaryIp": secondary, "status": status}
        return replies.json({"data": content, "stCode": 200, "stat": "Ok"})

    # --- orders -------------------------------------------------------------------------------

    def _place(self, call: Call) -> Reply:
        order = read_place(call.body)
        try:
            record = self._venue.now().place(call.ucc, order)
        except Refusal as refusal:
            if refusal.code == _DUPLICATE and self.settings.old_duplicate_code:
                raise Refusal(5204, _OLD_DUPLICATE, http_status=200) from None
            raise
        return replies.accepted(record.number)

    def _modify(self, call: Call) -> Reply:
        form = read_form(call.body, ModifyForm)
        market = self._venue.now()
        order = market.order(call.ucc, form.no)
        if order is None:
            raise Refusal(
                1021,
                "order is completed",
                http_status=200,
                stat="please provide valid order number",
            )
        change = read_change(form, order)
        return replies.accepted(market.modify(call.ucc, form.no, change).number)

    def _cancel(self, call: Call) -> Reply:
        number = read_form(call.body, CancelForm).on
        return replies.accepted(self._venue.now().cancel(call.ucc, number).number)

    def _exit(self, call: Call) -> Reply:
        number = read_form(call.body, CancelForm).on
        return replies.accepted(self._venue.now().exit(call.ucc, number).number)

    # --- reports ------------------------------------------------------------------------------

    def _orders(self, call: Call) -> Reply:
        orders = self._venue.now().orders(call.ucc)
        return _book([order_rows.order_row(order) for order in orders], stat="Ok")

    def _one_order(self, call: Call) -> Reply:
        order = self._venue.now().order(call.ucc, call.path.rpartition("/")[2])
        return _book([order_rows.order_row(order)] if order else [], stat="Ok")

    def _history(self, call: Call) -> Reply:
        number = read_form(call.body, HistoryForm).nOrdNo
        order = self._venue.now().order(call.ucc, number)
        states = reversed(order.history) if order else ()
        return _book([order_rows.history_row(order, state) for state in states if order], stat="Ok")

    def _trades(self, call: Call) -> Reply:
        market = self._venue.now()
        fills = [
            (fill, market.order(call.ucc, fill.order_number)) for fill in market.fills(call.ucc)
        ]
        return _book(
            [order_rows.trade_row(fill, order) for fill, order in fills if order], stat="ok"
        )

    def _positions(self, call: Call) -> Reply:
        positions = self._venue.now().positions(call.ucc)
        return _book(
            [
                {
                    **portfolio_rows.position_row(call.ucc, position),
                    "qty": str(portfolio_rows.net_quantity(position)),
                }
                for position in positions
            ],
            stat="ok",
        )

    def _positions_with_price(self, call: Call) -> Reply:
        market = self._venue.now()
        return _book(
            [
                {
                    **portfolio_rows.position_row(call.ucc, position),
                    "ltp": rupees(market.last_price(position.listing)),
                }
                for position in market.positions(call.ucc)
            ],
            stat="ok",
        )

    def _holdings(self, call: Call) -> Reply:
        holdings = self._venue.now().holdings(call.ucc)
        return replies.json({"data": [portfolio_rows.holding_row(holding) for holding in holdings]})

    def _limits(self, call: Call) -> Reply:
        market = self._venue.now()
        return replies.json(
            portfolio_rows.limits_row(call.ucc, market.funds(call.ucc), market.now_ns)
        )

    def _check_margin(self, call: Call) -> Reply:
        form = read_form(call.body, MarginForm)
        market = self._venue.now()
        segment = read_segment(form.exSeg)
        listing = market.listing_by_token(segment, form.tok)
        if listing is None:
            raise Refusal(1007, f"invalid token {form.tok!r} in {segment.value}")
        order = NewOrder(
            segment=segment,
            symbol=listing.symbol,
            side=read_side(form.trnsTp),
            quantity=read_quantity(form.qty),
            order_type=read_order_type(form.prcTp),
            product=read_product(form.prod),
            price=read_price(form.prc),
            trigger=read_price(form.trgPrc or "0"),
        )
        margin = market.order_margin(call.ucc, order)
        return replies.json(portfolio_rows.margin_row(market.funds(call.ucc), margin))

    # --- market data --------------------------------------------------------------------------

    def _quotes(self, call: Call) -> Reply:
        return _data_reply(self._market_data.quotes, call.path.partition("/neosymbol/")[2])

    def _expiries(self, call: Call) -> Reply:
        return _data_reply(self._market_data.expiries, call.query)

    def _chain(self, call: Call) -> Reply:
        return _data_reply(self._market_data.chain, call.query)

    def _candles(self, call: Call) -> Awaitable[Reply]:
        return self._market_data.candles(call.query)

    # --- scrip master -------------------------------------------------------------------------

    def _file_paths(self, call: Call) -> Reply:
        addresses = self._scrip_files.addresses(self._root_url, date_of(call.time))
        folder = f"{self._root_url}{FOLDER}"
        return replies.json({"data": {"filesPaths": addresses, "baseFolder": folder}})

    async def _file(self, call: Call) -> Reply:
        content = await self._scrip_files.file(call.path)
        if content is None:
            return replies.gateway_report(404, "Not Found", f"no file at {call.path}")
        return Reply(content, content_type="text/csv")


def _require_fin_key(call: Call) -> None:
    """Refuse a login step without the header `neo-fin-key`, as the broker does. Its value is the
    same for every client, and clients may bring another one: it is not checked."""
    if not call.headers.get("neo-fin-key", "").strip():
        raise FieldMissing("NeoFinKey")


def _quotes_path(path: str) -> str | None:
    """Return the quotes path that `path` begins with, if any."""
    return next((quotes for quotes in _QUOTES if path.startswith(quotes)), None)


def _data_reply(answer: Callable[[T], Reply], request: T) -> Reply:
    """Answer quotes or a chain, which are refused in a shape of their own."""
    try:
        return answer(request)
    except Refusal as refusal:
        return replies.data_refused(refusal)


def _book(rows_: list[Row], *, stat: str) -> Reply:
    """Answer a book. `stat` is spelled differently from book to book."""
    return replies.json({"stat": stat, "stCode": 200, "data": rows_}) if rows_ else replies.NO_DATA
