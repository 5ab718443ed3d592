"""Kite Connect mutual funds (Zerodha's Coin): orders, SIPs, holdings and the list of funds.

    from neo_async import Side
    from neo_async.kite import KiteMutualFunds

    async with KiteMutualFunds(api_key, access_token) as kite:
        order_id = await kite.place_order("INF174K01LS2", Side.BUY, amount=5000)
        for holding in await kite.holdings():
            print(holding.fund, holding.quantity, holding.pnl)

It is independent of the trading client, and shares its transport, limiter and errors.
"""

from neo_async.config import KiteEndpoints
from neo_async.kite.client import KiteMutualFunds
from neo_async.kite.funds import Funds
from neo_async.kite.model import (
    Frequency,
    Fund,
    FundHolding,
    FundOrder,
    FundOrderStatus,
    KiteLogin,
    Sip,
    SipStatus,
)
from neo_async.kite.session import KiteSession

__all__ = [
    "Frequency",
    "Fund",
    "FundHolding",
    "FundOrder",
    "FundOrderStatus",
    "Funds",
    "KiteEndpoints",
    "KiteLogin",
    "KiteMutualFunds",
    "KiteSession",
    "Sip",
    "SipStatus",
]
