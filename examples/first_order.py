"""Place an order, change it, see it filled. Runs against an exchange of its own: no account needed.

python examples/first_order.py
"""

import neo_async
from neo_async import NeoClient, OrderStatus, Product, Segment, Side
from neo_async.exchange import Exchange


async def main() -> None:
    async with (
        Exchange(seed=7) as exchange,
        NeoClient(exchange.credentials, endpoints=exchange.endpoints) as neo,
    ):
        order = await neo.orders.place(
            Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, price="39.00", product=Product.CNC
        )
        await order.wait(OrderStatus.OPEN, timeout=5)
        print("waiting: ", order)

        await neo.orders.modify(order, price="39.60")
        await order.wait(OrderStatus.COMPLETE, timeout=5)
        print("filled:  ", order, "at", order.average_price)

        for position in await neo.portfolio.positions():
            pnl = "unknown" if position.pnl is None else f"{position.pnl:+z.2f}"
            print("position:", position.symbol, position.net_quantity, "P&L", pnl)


neo_async.run(main())
