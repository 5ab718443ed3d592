"""The embedded exchange as the server of its benchmark, whole and on one core.

    python -m benchmarks.exchange_server [--core N] [--accounts N] [--state FILE]

It prints its ready line, and serves until its stdin ends. Nothing is throttled, and no account runs
out of money.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec
import uvloop

from benchmarks.harness import pin
from neo_async.exchange import Exchange

CASH = "999999999.00"


async def serve(accounts: int, state: Path | None) -> None:
    async with Exchange(limits=None, cash=CASH, accounts=accounts, state=state) as exchange:
        ready = exchange.ready() | {"pid": os.getpid()}
        print(msgspec.json.encode(ready).decode(), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exchange_server", description=__doc__
    )
    parser.add_argument("--core", type=int, help="keep the server on this core")
    parser.add_argument("--accounts", type=int, default=2)
    parser.add_argument("--state", type=Path, metavar="FILE", help="keep the market in this file")
    arguments = parser.parse_args()
    pin(arguments.core)
    uvloop.run(serve(arguments.accounts, arguments.state))


if __name__ == "__main__":
    main()
