"""Valid payloads: what the embedded exchange answers and sends, and the documents' examples."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from neo_async import Level, NeoClient, NeoError, Product, Segment, Side
from neo_async.banking import BankingProfile, VirtualAccount, VirtualAccounts
from neo_async.base.india import IST
from neo_async.exchange import Behaviour, Exchange
from neo_async.exchange.bank.settings import BankSettings
from neo_async.exchange.faults.settings import Faults
from neo_async.exchange.feeds.order_feed import _order_frame, _position_frame
from neo_async.kite import KiteMutualFunds
from neo_async.wire.order_feed import handshake_text
from neo_async.wire.recording import read_recording
from tests.fuzz.mutations import gzipped

PAYLOADS = Path(__file__).parents[1] / "payloads"
Seeds = Mapping[str, list[bytes]]
_AT_MOST = 40_000
"""Bytes of a payload: longer ones are cut at a line, so that an input takes little time."""


_HTTP: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    b'{"stat":"Ok"} \n',
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{"stat":"Ok"} \n\r\n0\r\n\r\n',
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzipped(b"{}" * 99),
)
_FAULTS: Final = (
    msgspec.json.encode(Faults(calls=("orders", "reads"))),
    msgspec.json.encode(Faults(seed=3)),
)
_HANDSHAKES: Final = (
    handshake_text("token", "sid", as_json=True).encode(),
    handshake_text("token", "sid", as_json=False).encode(),
)
_KITE_LOGIN: Final = (
    b'{"status":"success","data":{"user_id":"AB1234","user_name":"A B","access_token":"x",'
    b'"public_token":"y","login_time":"2026-11-23 09:01:02","exchanges":["MF"]}}',
)
_PROFILE: Final = (
    b"""[server]
base_url = "https://bank.example"
auth = "apikey"

[plan]
requests_per_second = 5
""",
)


class _Listening(Exchange):
    """Keeps what it answers, by the last part of the path."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.said: defaultdict[str, list[bytes]] = defaultdict(list)

    async def _handle(self, request: Any) -> Any:
        response = await super()._handle(request)
        if isinstance(response, web.Response):
            self.said[request.path.rpartition("/")[2]].append(bytes(response.body))
            if body := await request.read():
                self.said[f"asked {request.path.rpartition('/')[2]}"].append(body)
        return response


@functools.cache
def seeds() -> Seeds:
    """By what they are payloads of. Takes a second, once."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_made(Path(folder)))


async def _made(folder: Path) -> Seeds:
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    found.update({"http": [*_HTTP], "faults": [*_FAULTS], "profile": [*_PROFILE]})
    found.update({"handshake": [*_HANDSHAKES], "kite login": [*_KITE_LOGIN]})
    for path in sorted(PAYLOADS.rglob("*.*")):
        found[path.stem].append(path.read_bytes())
    state, recording, journal = folder / "state", folder / "recording", folder / "journal"
    async with _Listening(
        seed=7,
        state=state,
        limits=None,
        behaviour=Behaviour(bank=BankSettings(requests_per_second=None)),
    ) as exchange:
        await _trade(exchange, folder, recording, journal)
        await _pay(exchange)
        await _invest(exchange, folder)
        ucc = exchange.credentials.ucc
        for order in exchange.market.orders(ucc):
            for step in order.steps:
                found["order feed"] += [_order_frame(order, row).encode() for row in step.rows()]
        for position in exchange.market.positions(ucc):
            found["order feed"].append(_position_frame(ucc, position).encode())
        for name, bodies in exchange.said.items():
            found[name] += bodies
    found["recording"].append(recording.read_bytes())
    for frame in read_recording(recording):
        if isinstance(frame.content, bytes):
            found["packets"].append(frame.content)
        elif frame.content is not None:
            found["control"].append(frame.content.encode())
    found["state"].append(state.read_bytes())
    found["journal"].append(journal.read_bytes())
    found["instruments"] += [path.read_bytes() for path in folder.glob("instruments-*")]  # noqa: ASYNC240
    return {name: [_short(name, body) for body in bodies[:40]] for name, bodies in found.items()}


async def _trade(exchange: Exchange, folder: Path, recording: Path, journal: Path) -> None:
    async with NeoClient(
        exchange.credentials,
        endpoints=exchange.endpoints,
        instruments_directory=folder,
        journal=journal,
    ) as neo:
        loaded = await neo.instruments.load(Segment.NSE_CM, Segment.NSE_FO)
        assert loaded
        found = neo.instruments.search("")
        cash = [each for each in found if each.segment is Segment.NSE_CM and each.series][:5]
        names = [f"{each.segment.value}|{each.token}" for each in cash]
        for each in cash[:3]:
            for price in (each.upper_band, each.lower_band):
                try:
                    order = await neo.orders.place(
                        each.segment, each.symbol, Side.BUY, 1, price=price, product=Product.CNC
                    )
                    await neo.orders.history(order)
                except NeoError:
                    continue
        feed = neo.market_feed(level=None)
        async with feed, feed.record(recording):
            await feed.until_live()
            for level in Level:
                await feed.subscribe(names, level=level)
            await feed.subscribe_indices(["nse_cm|26000", "nse_cm|26009"])
            await feed.subscribe_status()
            await asyncio.sleep(0.6)
        today = datetime.now(IST).date()
        for read in (
            neo.orders.book, neo.orders.trades, neo.portfolio.positions, neo.portfolio.holdings,
            neo.portfolio.limits, lambda: neo.market.quotes(names),
            lambda: neo.market.expiries(Segment.NSE_FO, "NIFTY"),
            lambda: neo.market.option_chain(Segment.NSE_FO, "NIFTY"),
            lambda: neo.market.futures_chain(Segment.NSE_FO, "NIFTY"),
            lambda: neo.market.candles(names[0], "5min", today - timedelta(days=3), today),
            lambda: neo.portfolio.margin(
                Segment.NSE_CM, cash[0].token, Side.BUY, 1, product=Product.CNC, price=100
            ),
        ):  # fmt: skip
            try:
                await read()  # type: ignore[operator]
            except (NeoError, TypeError):
                continue


async def _pay(exchange: Exchange) -> None:
    customer = exchange.bank.client
    profile = BankingProfile.of({"server": {"base_url": exchange.bank_url}})
    async with VirtualAccounts(
        customer.client_id,
        customer.client_secret,
        profile=profile,
        client_name=customer.name,
        physical_account=customer.physical_accounts[0],
    ) as bank:
        await bank.create([VirtualAccount("ACME00000001", "Asha", valid_to=date(2099, 1, 1))])
        await bank.accounts(["ACME00000001", "ACME00000009"])
        exchange.bank.credit("ACME00000001", "1500.00", narration="INV 77", count=3)
        credits_ = [credit async for credit in bank.transactions()]
        refund = await bank.refund("ACME", credits_[0].reference, amount="500")
        assert refund.refund_reference
        await bank.delete(["ACME00000001"])


async def _invest(exchange: Exchange, folder: Path) -> None:
    application = exchange.kite
    async with KiteMutualFunds(
        application.api_key,
        application.access_token,
        endpoints=exchange.kite_endpoints,
        directory=folder,
    ) as kite:
        for read in (kite.orders, kite.sips, kite.holdings, kite.instruments):
            await read()


def _short(name: str, body: bytes) -> bytes:
    is_text = body[:1] not in (b"\x1f", b"N", b"S") and name not in ("packets", "instruments")
    if len(body) <= _AT_MOST or not is_text or body[:1] in (b"{", b"["):
        return body
    return body[: body.rfind(b"\n", 0, _AT_MOST) + 1]
