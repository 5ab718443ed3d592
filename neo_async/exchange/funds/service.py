"""Kite Connect's mutual-fund service without its sockets: a call in, a reply out.

Its paths begin at the root of the server: the official client drops any path of its `root=`.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from neo_async.exchange.faults.settings import Calls
from neo_async.exchange.funds.login import KiteLogins
from neo_async.exchange.funds.requests import need, read_change, read_form, read_order, read_sip
from neo_async.exchange.funds.rows import (
    holding_row,
    instruments_file,
    order_row,
    sip_row,
    timestamp,
)
from neo_async.exchange.funds.types import FundRefusal
from neo_async.exchange.funds.venue import FundVenue
from neo_async.exchange.rest.replies import Reply, json
from neo_async.exchange.rest.services import AdminRoutes, Call, ErrorResponses
from neo_async.exchange.rest.throttle import Throttle, Throttled

_VERSION: Final = "3"
_PREFIXES: Final = ("/mf/", "/session/", "/connect/")
_LOGIN_PATH: Final = "/connect/login"
_LANDING_PATH: Final = "/connect/landing"
_LANDED: Final = b"Logged in. The request token is in the address of this page.\n"

Answer = Callable[[Call], Reply]
OneAnswer = Callable[[Call, str], Reply]


class FundService:
    def __init__(
        self,
        venue: FundVenue,
        logins: KiteLogins,
        throttle: Throttle,
        *,
        root_url: str,
    ) -> None:
        self._venue = venue
        self._simulator = venue.now
        self._logins_service = logins
        self._throttle = throttle
        self._landing_url = f"{root_url}{_LANDING_PATH}"
        self._open_calls: dict[tuple[str, str], Answer] = {
            ("POST", "/session/token"): self._open_session,
            ("DELETE", "/session/token"): self._end_session,
            ("POST", "/session/refresh_token"): self._renew_session,
        }
        self._calls: dict[tuple[str, str], Answer] = {
            ("GET", "/mf/orders"): self._orders,
            ("POST", "/mf/orders"): self._place,
            ("GET", "/mf/sips"): self._sips,
            ("POST", "/mf/sips"): self._place_sip,
            ("GET", "/mf/holdings"): self._holdings,
            ("GET", "/mf/instruments"): self._instruments,
        }
        self._calls_of_one: dict[tuple[str, str], OneAnswer] = {
            ("GET", "/mf/orders/"): self._order,
            ("DELETE", "/mf/orders/"): self._cancel,
            ("GET", "/mf/sips/"): self._sip,
            ("PUT", "/mf/sips/"): self._modify_sip,
            ("PUT", "/mf/sip/"): self._modify_sip,  # as one of the document's samples has it
            ("DELETE", "/mf/sips/"): self._cancel_sip,
        }
        self.error_responses = ErrorResponses(
            _THROTTLED, lambda status: _error(status, "GeneralException", HTTPStatus(status).phrase)
        )

    @property
    def admin_routes(self) -> AdminRoutes:
        """Routes of the control surface: none, because the clock does what there is to do."""
        return {}

    def reset(self) -> None:
        """Start over, as the market does. Logins stay."""
        self._venue.reset()

    def takes(self, path: str) -> bool:
        return path.startswith(_PREFIXES)

    def kind(self, method: str, path: str) -> Calls:
        """Return the kind of call, which decides the faults it meets."""
        if not path.startswith("/mf/"):
            return "logins"
        return "reads" if method == "GET" else "orders"

    def answer(self, call: Call) -> Reply:
        try:
            reply = self._engine(call)
        except FundRefusal as refusal:
            return _error(refusal.status, refusal.error_type, refusal.text)
        except Throttled:
            return _THROTTLED
        if call.method != "GET":
            self._venue.keep()
        return reply

    # --- from a path to an answer -------------------------------------------------------------

    def _engine(self, call: Call) -> Reply:
        if call.path == _LOGIN_PATH:
            return self._log_in(call)
        if call.path == _LANDING_PATH:
            return Reply(
                b"Logged in. The request token is in this page's address.\n", 200, "text/plain"
            )
        if call.headers.get("X-Kite-Version") != _VERSION:
            raise FundRefusal("Invalid or missing `X-Kite-Version` header: has to be 3.")
        open_answer = self._open_calls.get((call.method, call.path))
        if open_answer is not None:
            return open_answer(call)
        self._logins_service.authorise(call.headers.get("Authorization", ""), call.time)
        self._throttle.admit(
            self._logins_service.application.api_key, call.wall_time, is_order=False
        )
        path = call.path.rstrip("/")
        answer = self._calls.get((call.method, path))
        if answer is not None:
            return answer(call)
        kind, _, number = path.rpartition("/")
        of_one = self._calls_of_one.get((call.method, f"{kind}/"))
        if of_one is not None:
            return of_one(call, number)
        return self._no_route(call.method, path, f"{kind}/")

    def _no_route(self, method: str, *paths: str) -> Reply:
        routes = [*self._calls, *self._calls_of_one]
        if any(path in paths for _, path in routes):
            return _error(405, "GeneralException", f"Method {method} is not allowed here.")
        return _error(404, "GeneralException", "Route not found")

    # --- login --------------------------------------------------------------------------------

    def _log_in(self, call: Call) -> Reply:
        """Redirect as the login page does after a login."""
        token = self._logins_service.request_token(need(call.query, "api_key"), call.time)
        query = urlencode({"request_token": token, "action": "login", "status": "success"})
        return Reply(b"", 302, "text/plain", {"Location": f"{self._landing_url}?{query}"})

    def _open_session(self, call: Call) -> Reply:
        form = read_form(call.body)
        tokens = self._logins_service.open(
            need(form, "api_key"), need(form, "request_token"), need(form, "checksum"), call.time
        )
        return self._session(tokens, call.time)

    def _renew_session(self, call: Call) -> Reply:
        form = read_form(call.body)
        tokens = self._logins_service.renew(
            need(form, "api_key"), need(form, "refresh_token"), need(form, "checksum"), call.time
        )
        return self._session(tokens, call.time)

    def _end_session(self, call: Call) -> Reply:
        query = call.query
        name = "refresh_token" if "refresh_token" in query else "access_token"
        self._logins_service.end(need(query, "api_key"), need(query, name))
        return _success(True)

    def _session(self, tokens: dict[str, str], now: float) -> Reply:
        application = self._logins_service.application
        return _success(
            {
                "user_type": "individual",
                "email": "investor@example.com",
                "user_name": "INVESTOR",
                "user_shortname": "INVESTOR",
                "broker": "ZERODHA",
                "exchanges": ["MF"],
                "products": ["CNC"],
                "order_types": ["MARKET"],
                "avatar_url": None,
                "user_id": application.user_id,
                "api_key": application.api_key,
                "public_token": "",
                "enctoken": "",
                "silo": "",
                "login_time": timestamp(now),
                "meta": {"demat_consent": "consent"},
                **tokens,
            }
        )

    # --- orders -------------------------------------------------------------------------------

    def _orders(self, _: Call) -> Reply:
        simulator = self._simulator()
        user = self._logins_service.application.user_id
        return _success([order_row(simulator, order, user) for order in simulator.orders()])

    def _order(self, _: Call, order_id: str) -> Reply:
        simulator = self._simulator()
        return _success(
            order_row(
                simulator, simulator.order(order_id), self._logins_service.application.user_id
            )
        )

    def _place(self, call: Call) -> Reply:
        order = read_order(read_form(call.body))
        return _success({"order_id": self._simulator().place(order).order_id})

    def _cancel(self, _: Call, order_id: str) -> Reply:
        return _success({"order_id": self._simulator().cancel(order_id).order_id})

    # --- SIPs ---------------------------------------------------------------------------------

    def _sips(self, _: Call) -> Reply:
        simulator = self._simulator()
        return _success([sip_row(simulator, sip) for sip in simulator.sips()])

    def _sip(self, _: Call, sip_id: str) -> Reply:
        simulator = self._simulator()
        return _success(sip_row(simulator, simulator.sip(sip_id)) | {"fund_source": "pool"})

    def _place_sip(self, call: Call) -> Reply:
        sip = read_sip(read_form(call.body))
        return _success({"sip_id": self._simulator().place_sip(sip).sip_id})

    def _modify_sip(self, call: Call, sip_id: str) -> Reply:
        change = read_change(read_form(call.body))
        return _success({"sip_id": self._simulator().modify_sip(sip_id, change).sip_id})

    def _cancel_sip(self, _: Call, sip_id: str) -> Reply:
        return _success({"sip_id": self._simulator().cancel_sip(sip_id).sip_id})

    # --- holdings and instruments -------------------------------------------------------------

    def _holdings(self, _: Call) -> Reply:
        simulator = self._simulator()
        return _success([holding_row(simulator, holding) for holding in simulator.holdings()])

    def _instruments(self, _: Call) -> Reply:
        return Reply(
            instruments_file(self._simulator()), 200, "text/csv", {"Content-Encoding": "gzip"}
        )


def _success(data: object) -> Reply:
    return json({"status": "success", "data": data})


def _error(status: int, error_type: str, message: str) -> Reply:
    return json(
        {"status": "error", "message": message, "data": None, "error_type": error_type},
        status=status,
    )


_THROTTLED: Final = _error(429, "NetworkException", "Too many requests")
