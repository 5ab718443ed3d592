"""Place thirty orders at once and let the limiter keep the broker's pace: no 429, nothing lost.

python examples/burst.py
"""

import time

import neo_async
from neo_async import NeoClient, NeoError, OrderRequest, Product, Segment, Side
from neo_async.exchange import Exchange


async def main() -> None:
    async with (
        Exchange(seed=7) as exchange,
        NeoClient(exchange.credentials, endpoints=exchange.endpoints) as neo,
    ):
        requests = [
            OrderRequest(Segment.NSE_CM, symbol, Side.BUY, 1, Product.MIS, price, tag=f"no{number}")
            for number in range(10)
            for symbol, price in (("TCS-EQ", "2080"), ("INFY-EQ", "1480"), ("SBIN-EQ", "950"))
        ]
        begun = time.perf_counter()
        outcomes = await neo.orders.place_many(requests)
        took = time.perf_counter() - begun
        failed = [outcome for outcome in outcomes if isinstance(outcome, NeoError)]
        print(f"{len(outcomes)} orders in {took:.2f} s, {len(failed)} failed; {neo.limiter!r}")

        # A cancel overtakes every placement that still waits for its turn.
        cancelled = await neo.orders.cancel_all(segment=Segment.NSE_CM, symbol="TCS-EQ")
        print(f"{len(cancelled)} orders for TCS-EQ cancelled")


neo_async.run(main())
