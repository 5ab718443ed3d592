"""A bracket: an entry, and one exit that is a stop until the target is touched.

python examples/bracket.py
"""

import asyncio
from decimal import Decimal

import neo_async
from neo_async import NeoClient, OrderType, Product, Segment, Side
from neo_async.exchange import Exchange

ITBEES = "nse_cm|19084"


async def main() -> None:
    async with (
        Exchange(seed=7) as exchange,
        NeoClient(exchange.credentials, endpoints=exchange.endpoints) as neo,
    ):
        await neo.instruments.load(Segment.NSE_CM)
        last = Decimal(str((await neo.market.quotes([ITBEES]))[ITBEES].last_price))
        plan = await neo.exits.bracket(
            Segment.NSE_CM,
            "ITBEES-EQ",
            Side.BUY,
            10,
            product=Product.MIS,
            order_type=OrderType.MARKET,
            stop=last - Decimal("0.50"),
            target=last + Decimal("0.50"),
        )
        market = asyncio.create_task(whipsaw(exchange, last))
        async for change in plan.changes():
            print(
                f"{change.status:9} {change.open_quantity:2} open, "
                f"{change.unprotected:2} without an exit, stop {change.stop}"
            )
        await market
        print("exited by", plan.exited_by, "with", plan.exits)
        for position in await neo.portfolio.positions():
            print("position:", position.symbol, position.net_quantity)


async def whipsaw(exchange: Exchange, last: Decimal) -> None:
    """Run the price up to the target, and down through the stop right after."""
    await asyncio.sleep(0.5)
    exchange.print_price("ITBEES-EQ", str(last + Decimal("0.55")))
    exchange.print_price("ITBEES-EQ", str(last - Decimal("0.60")))


if __name__ == "__main__":
    neo_async.run(main())
