"""A fake server of market data: it has some instruments, and keeps to the broker's limits.

It refuses what the broker refuses (more than 50 instruments, a span too long), and notes every
request as it came over the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, Self
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import web

from tests.fake_servers import BASE, SID, TOKEN, VALIDATE, Cut, Reply, Scripted, respond, serving

UNKNOWN = Reply({"stat": "Not_Ok", "emsg": "Invalid instrument/code", "stCode": 1009})
REFUSED = Reply({"code": 400, "message": "malformed request"}, 400)
UPSTREAM = Reply({"code": 400, "message": "Failed to call upstream quote API"})

SPANS = {"5min": 30, "15min": 60, "60min": 90, "D": 180, "W": 180}


class DataBroker(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self._open = contextlib.AsyncExitStack()
        self.raw: list[str] = []
        """Paths of data requests, as they came."""
        self.queries: list[dict[str, str]] = []
        self.unknown: set[str] = set()
        self.poison: set[str] = set()
        """Instruments for which the whole request is refused."""
        self.instead: Callable[[int, str], Reply | Cut | None] = lambda number, path: None
        """Number of the data request (from 1) and its path to what is answered; None for the
        usual."""
        self.under_way = 0
        self.most_under_way = 0
        self.rng = random.Random(5)
        self.no_business: set[date] = set()

    async def __aenter__(self) -> Self:
        url = self.url = await self._open.enter_async_context(serving(self.handle))
        session = {"token": TOKEN, "sid": SID, "status": "success", "baseUrl": url + BASE}
        self.script(VALIDATE, Reply({"data": session}))
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._open.aclose()
        await asyncio.sleep(0)  # connections close in the turn of the loop that follows

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.removeprefix(BASE)
        if not path.startswith(("/script-details/", "/market-data/")):
            return await super().handle(request)
        self.requests.append(
            (path, {name.lower(): value for name, value in request.headers.items()}, b"")
        )
        self.raw.append(path)
        number = len(self.raw)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0.001)
            reply = self.instead(number, path) or self._answer(path)
            return await respond(request, reply)
        finally:
            self.under_way -= 1

    def _answer(self, path: str) -> Reply:
        where, _, query = path.partition("?")
        fields = dict(parse_qsl(query))
        if fields:
            self.queries.append(fields)
        if where.startswith("/script-details/1.0/quotes/neosymbol/"):
            listed, _, kind = where.removeprefix(
                "/script-details/1.0/quotes/neosymbol/"
            ).rpartition("/")
            return self._quotes([unquote(name) for name in listed.split(",")], kind)
        if where == "/market-data/1.0/historical/details":
            return self._candles(fields)
        return UNKNOWN

    def _quotes(self, names: list[str], kind: str) -> Reply:
        if len(names) > 50 or self.poison & set(names):
            return REFUSED
        rows = [_quote(name) for name in names if name not in self.unknown]
        self.rng.shuffle(rows)
        return Reply(msgspec.json.encode(rows)) if rows else UNKNOWN

    def _candles(self, query: Mapping[str, str]) -> Reply:
        first, last = (date.fromisoformat(query[name]) for name in ("fromdate", "todate"))
        if (last - first).days + 1 > SPANS[query["interval"]]:
            fault = {"code": 400, "message": "Date range is too long"}
            return Reply({"status": "ERROR", "fault": fault})
        rows: list[Any] = []
        day = first
        while day <= last:
            if day not in self.no_business:
                rows += candles_of(day, query["interval"])
            day += timedelta(days=1)
        return Reply({"status": "success", "data": {"candles": rows}})


def candles_of(day: date, interval: str) -> list[list[Any]]:
    """None on weekends, and of weeks one on every Monday."""
    if day.weekday() > (0 if interval == "W" else 4):
        return []
    price = float(day.toordinal())
    if not interval.endswith("min"):
        return [[f"{day}T00:00:00+0530", price, price + 2, price - 2, price + 1, 100, 0]]
    step = timedelta(minutes=int(interval.removesuffix("min")))
    opening = datetime(day.year, day.month, day.day, 9, 15)
    times = [opening + n * step for n in range(int(timedelta(minutes=375) / step))]
    return [[f"{t.isoformat()}+0530", price, price + 2, price - 2, price + 1, 7, 0] for t in times]


def _quote(name: str) -> dict[str, Any]:
    segment, _, token = name.partition("|")
    return {
        "exchange": segment,
        "exchange_token": token,
        "display_symbol": f"SYMBOL{token}-EQ" if token.isdigit() else f"{token}-IN",
        "lstup_time": "1782374657",
        "ltp": f"{token}.5000" if token.isdigit() else "24000.1000",
        "change": "-8.4000",
        "per_change": "-1.0600",
        "last_volume": "30043533",
        "ohlc": {"open": "798.5", "high": "804.45", "low": "796.0", "close": "793.2"},
    }
