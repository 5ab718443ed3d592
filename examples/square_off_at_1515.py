"""Close every intraday position at 15:15, before the broker does it at 15:20.

With the environment of an account, or of `neo-async exchange --env FILE`:

    python examples/square_off_at_1515.py

NOW=1 squares off at once.
"""

import os

import neo_async
from neo_async import NeoClient, NeoError, Product


async def main() -> None:
    async with NeoClient(session=True) as neo:
        if not os.environ.get("NOW"):
            await neo.calendar.until("15:15")
        for result in await neo.portfolio.square_off(product=Product.MIS):
            if isinstance(result, NeoError):
                print("left:", result)
            else:
                print("flat:", result.symbol, "closed", result.quantity)


if __name__ == "__main__":
    neo_async.run(main())
