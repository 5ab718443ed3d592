"""Buy a mutual fund, let the batch of 13:30 run, begin a SIP. Runs against an exchange of its own.

python examples/mutual_funds.py
"""

import neo_async
from neo_async import Side
from neo_async.exchange import Exchange
from neo_async.kite import Frequency, KiteMutualFunds


async def main() -> None:
    # At Zerodha: KiteMutualFunds.from_env(), with the access token of a KiteSession.
    async with (
        Exchange(seed=7) as exchange,
        KiteMutualFunds(
            exchange.kite.api_key, exchange.kite.access_token, endpoints=exchange.kite_endpoints
        ) as kite,
    ):
        funds = await kite.instruments()  # kept for the day; requests are checked against it
        fund = funds.search("kotak select focus", plan="direct", dividend_type="growth")[0]
        print(f"{fund.name}: at least {fund.minimum_purchase_amount:,.0f} rupees")

        order_id = await kite.place_order(fund.tradingsymbol, Side.BUY, amount=5000)
        print("placed:  ", (await kite.order(order_id)).status)

        exchange.advance_clock(4 * 86_400)  # past the batch of the next market day
        order = await kite.order(order_id)
        print(f"executed: {order.status}, {order.quantity} units at {order.average_price}")

        sip_id = await kite.place_sip(
            fund.tradingsymbol, 1000, frequency=Frequency.MONTHLY, instalment_day=5
        )
        print("next instalment on", (await kite.sip(sip_id)).next_instalment)

        for holding in await kite.holdings():
            gain = holding.unknown_reason or f"{holding.pnl:+z.2f}"
            print(f"{holding.fund}: {holding.quantity} units, {gain}")


neo_async.run(main())
