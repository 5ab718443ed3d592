"""Place one order in an account of one's own, after asking.

Reads NEO_CONSUMER_KEY, NEO_MOBILE_NUMBER, NEO_UCC, NEO_MPIN and NEO_TOTP_SECRET. Without
NEO_LOGIN_URL it goes to the broker, with real money; `neo-async exchange --env FILE` writes what
leads to an exchange on this machine instead.

    python examples/live.py ITBEES-EQ 1 39.35
"""

import sys

import neo_async
from neo_async import Endpoints, NeoClient, NeoError, Product, Segment, Side


async def main(symbol: str, quantity: int, price: str) -> None:
    async with NeoClient(session=True) as neo:
        limits = await neo.portfolio.limits()
        print(f"logged in as {neo.session.ucc}, {limits.available} rupees available")
        order = await neo.orders.place(
            Segment.NSE_CM, symbol, Side.BUY, quantity, price=price, product=Product.CNC
        )
        try:
            await order.wait(timeout=30)
        except TimeoutError:
            print("not filled within 30 s: cancelling")
            await neo.orders.cancel(order)
            await order.wait(timeout=30)
        print(order, order.reject_reason)


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[2].isdigit():
        sys.exit("usage: live.py SYMBOL QUANTITY PRICE, the quantity in units")
    symbol, quantity, price = sys.argv[1:]
    # Asked before anything runs: a question would stop the event loop.
    server = Endpoints.from_env()
    where = f"{server.login} ({'paper' if server.is_paper else 'live'})"
    if input(f"buy {quantity} {symbol} at {price} for delivery, at {where}? [y/N] ") != "y":
        sys.exit("nothing was sent")
    try:
        neo_async.run(main(symbol, int(quantity), price))
    except NeoError as error:
        sys.exit(f"{type(error).__name__}: {error}")
