"""The calls of the trading API in one table: method, path, and credentials."""

from __future__ import annotations

from enum import Enum, auto

import msgspec


class Auth(Enum):
    """The credentials of a call. The broker's documents and its SDK disagree on some; each entry
    sends what satisfies both."""

    ACCESS = auto()
    """`Authorization` only: market data, before the login too."""
    TRADE = auto()
    """`Sid` and `Auth` of the login: reports and portfolio."""
    ORDER = auto()
    """The three headers of order requests."""


class Endpoint(msgspec.Struct, frozen=True):
    name: str
    """Name of the call in errors and logs."""
    method: str
    path: str
    """Path after the base URL, which may have a path itself."""
    auth: Auth
    is_at_login: bool = False
    """Whether the path is one of the host that logins go to."""


LOGIN_PATH = "/login/1.0/tradeApiLogin"
VALIDATE_PATH = "/login/1.0/tradeApiValidate"

PLACE = Endpoint("place", "POST", "/quick/order/rule/ms/place", Auth.ORDER)
MODIFY = Endpoint("modify", "POST", "/quick/order/vr/modify", Auth.ORDER)
CANCEL = Endpoint("cancel", "POST", "/quick/order/cancel", Auth.ORDER)
EXIT_BRACKET = Endpoint("exit bracket", "POST", "/quick/order/bo/exit", Auth.ORDER)
EXIT_COVER = Endpoint("exit cover", "POST", "/quick/order/co/exit", Auth.ORDER)

CLIENT_IP = Endpoint("client ip", "GET", "/login/1.0/get-client-ip", Auth.ORDER, is_at_login=True)

ORDER_BOOK = Endpoint("order book", "GET", "/quick/user/orders", Auth.TRADE)
HISTORY = Endpoint("order history", "POST", "/quick/order/history", Auth.TRADE)
TRADES = Endpoint("trades", "GET", "/quick/user/trades", Auth.TRADE)

POSITIONS = Endpoint("positions", "GET", "/portfolio/v2/positions", Auth.TRADE)
POSITIONS_OLDER = Endpoint("positions", "GET", "/quick/user/positions", Auth.TRADE)
HOLDINGS = Endpoint("holdings", "GET", "/portfolio/v1/holdings", Auth.TRADE)
LIMITS = Endpoint("limits", "POST", "/quick/user/limits", Auth.TRADE)
CHECK_MARGIN = Endpoint("check margin", "POST", "/quick/user/check-margin", Auth.TRADE)

QUOTES = Endpoint("quotes", "GET", "/script-details/1.0/quotes/neosymbol", Auth.ACCESS)
EXPIRIES = Endpoint("expiries", "GET", "/market-data/1.0/watchlist/expiries", Auth.ACCESS)
CHAIN = Endpoint("chain", "GET", "/market-data/1.0/watchlist/option-chain", Auth.ACCESS)
CANDLES = Endpoint("candles", "GET", "/market-data/1.0/historical/details", Auth.ACCESS)

SCRIP_MASTERS = Endpoint(
    "scrip master files", "GET", "/script-details/1.0/masterscrip/file-paths", Auth.ACCESS
)
