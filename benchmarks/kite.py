"""Kite: reading 10,000 funds of CSV and 1,000 SIPs of JSON, against `kiteconnect`.

Both peers read the same bytes; rounds alternate on one core. `kiteconnect` is called as a program
calls it (`mf_instruments()`, `mf_sips()`), with a session in place of the network that hands it the
bytes; so it has the check that the answer is a success in its time, as ours has. Results are thrown
away inside the measured time, and the garbage collector stays on, since both are part of what a
program pays. The first and the last row of both peers are compared before.

How long the loop is held is the longest of the steps in which the client reads an answer.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import requests
from kiteconnect import KiteConnect

from benchmarks.harness import (
    Benchmark,
    Figure,
    Report,
    Wanted,
    at_least,
    at_most,
    cores,
    measure_calls,
    microseconds_after_collection,
    pin,
    readers_table,
    summarise,
)
from neo_async.kite import Fund, Sip
from neo_async.kite.fund_file import FundFileReader
from neo_async.kite.wire import read_list, read_sip
from neo_async.model.answer import Answer

FUNDS = 10_000
SIPS = 1_000

OURS = "neo_async"
THEIRS = "kiteconnect"
UNZIPPING = "neo_async, from gzip"

Peer = Callable[[], object]

_COLUMNS = tuple(field.name for field in msgspec.structs.fields(Fund))
_TODAY = date(2026, 11, 20)


def funds_body() -> bytes:
    """Return a list as long as the real one; one name in twenty has a comma in it."""
    chance = random.Random(7)
    rows = [",".join(_COLUMNS)]
    for count in range(FUNDS):
        name = f"House {count % 40} {'Small, Mid' if count % 20 == 0 else 'Large'} Cap Fund {count}"
        rows.append(
            f'INF{count:08d}{count % 10},HOUSE{count % 40}MUTUALFUND_MF,"{name} - Direct Plan",'
            f"{int(count % 15 > 0)},1,{chance.choice((100, 500, 1000, 5000))}.0,"
            f"{chance.choice(('1.0', '0.01', '500.0'))},{chance.choice((100, 500))}.0,"
            f"{chance.choice(('0.001', '1.0'))},0.001,{chance.choice(('growth', 'payout'))},"
            f"{chance.choice(('equity', 'debt', 'elss'))},direct,T3,"
            f"{chance.randrange(10_0000, 4000_0000) / 10_000},{_TODAY}"
        )
    return ("\n".join(rows) + "\n").encode()


def sips_body() -> bytes:
    chance = random.Random(7)
    rows = []
    for count in range(SIPS):
        created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=17 * count)
        rows.append(
            {
                "status": chance.choice(("ACTIVE", "PAUSED")),
                "sip_reg_num": None,
                "created": f"{created:%Y-%m-%d %H:%M:%S}",
                "dividend_type": "growth",
                "instalment_amount": chance.randrange(1, 100) * 500.0,
                "fund": f"House Large Cap Fund {count} - Direct Plan",
                "instalments": -1,
                "next_instalment": f"{_TODAY}",
                "transaction_type": "BUY",
                "trigger_price": 0,
                "step_up": {f"{created:%d-%m}": 10},
                "tradingsymbol": f"INF{count:08d}{count % 10}",
                "tag": "coiniossip",
                "frequency": chance.choice(("weekly", "monthly")),
                "last_instalment": f"{created:%Y-%m-%d %H:%M:%S}",
                "pending_instalments": -1,
                "instalment_day": 0,
                "sip_type": "sip",
                "completed_instalments": count % 12,
                "sip_id": str(10**14 + count),
            }
        )
    return json.dumps({"status": "success", "data": rows}).encode()


class _Session:
    """Stands in for `requests.Session`: always the same answer, without a network."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self._body = body
        self._content_type = content_type

    def request(self, *_: object, **__: object) -> requests.Response:
        response = requests.Response()
        response.status_code = 200
        response.headers["content-type"] = self._content_type
        response.encoding = "utf-8"
        response._content = self._body
        return response


def kiteconnect_of(body: bytes, content_type: str) -> Any:
    client = KiteConnect("key", "token", root="http://127.0.0.1")
    client.reqsession.close()
    client.reqsession = _Session(body, content_type)
    return client


def read_funds(body: bytes) -> list[Fund]:
    reader = FundFileReader()
    for _ in reader.feed(body):
        pass
    reader.finish()
    return reader.funds


def read_sips(body: bytes) -> list[Sip]:
    return [read_sip(row) for row in read_list(Answer(200, {}, body))]


def longest_step(body: bytes) -> float:
    """Return the longest time, in ms, for which a list received in one piece holds the loop."""
    reader = FundFileReader()
    longest = 0.0
    before = time.perf_counter()
    for _ in reader.feed(body):
        now = time.perf_counter()
        longest = max(longest, now - before)
        before = time.perf_counter()
    reader.finish()
    return longest * 1000


def fund_peers(body: bytes) -> dict[str, Peer]:
    zipped = gzip.compress(body)
    client = kiteconnect_of(body, "text/csv")
    _compare(read_funds(body), client.mf_instruments())
    return {
        OURS: lambda: read_funds(body),
        UNZIPPING: lambda: read_funds(zipped),
        THEIRS: client.mf_instruments,
    }


def sip_peers(body: bytes) -> dict[str, Peer]:
    client = kiteconnect_of(body, "application/json")
    _compare(read_sips(body), client.mf_sips())
    return {OURS: lambda: read_sips(body), THEIRS: client.mf_sips}


def _compare(ours: list[Any], theirs: list[dict[str, Any]]) -> None:
    if len(ours) != len(theirs):
        raise SystemExit(f"{len(ours)} rows here, {len(theirs)} from {THEIRS}")
    for place in (0, -1):
        for name, value in theirs[place].items():
            found = getattr(ours[place], name)
            if isinstance(found, datetime):
                found = found.replace(tzinfo=None)
            elif isinstance(found, date) and isinstance(value, str):
                found = found.isoformat()
            if found != value:
                raise SystemExit(f"{name}: {found!r} here, {value!r} from {THEIRS}")


def measure_peers(peers: Mapping[str, Peer], rounds: int) -> dict[str, Figure]:
    """Return the milliseconds of one reading, by peer."""
    calls = {
        name: lambda peer=peer: microseconds_after_collection(peer, 1) / 1e3
        for name, peer in peers.items()
    }
    return measure_calls(calls, rounds=rounds, warm_up=2)


def wanted_of(figures: dict[str, dict[str, Figure]], step: Figure) -> list[Wanted]:
    funds, sips = figures["funds"], figures["sips"]
    return [
        at_most(f"{FUNDS:,} funds, parsed", 100, funds[OURS].median, "ms"),
        at_most("the same: loop held", 5, step.median, "ms"),
        at_least(
            f"{FUNDS:,} funds: {THEIRS} ÷ {OURS}", 1, funds[THEIRS].median / funds[OURS].median
        ),
        at_least(f"{SIPS:,} SIPs: {THEIRS} ÷ {OURS}", 3, sips[THEIRS].median / sips[OURS].median),
    ]


def measure(arguments: argparse.Namespace) -> Report:
    """Measure both lists, and how long the longer one holds the loop."""
    pin(cores()[1])
    bodies = {"funds": funds_body(), "sips": sips_body()}
    figures = {
        "funds": measure_peers(fund_peers(bodies["funds"]), arguments.rounds),
        "sips": measure_peers(sip_peers(bodies["sips"]), arguments.rounds),
    }
    step = summarise(longest_step(bodies["funds"]) for _ in range(arguments.rounds))
    tables = [
        readers_table(
            f"{name}: {rows:,} rows, {len(bodies[name]):,} bytes; {arguments.rounds} rounds",
            "ms",
            OURS,
            figures[name],
        )
        for name, rows in (("funds", FUNDS), ("sips", SIPS))
    ]
    return Report(
        {
            "bytes": {name: len(body) for name, body in bodies.items()},
            "unit": "milliseconds a reading, result freed, garbage collector on",
            "figures": figures,
            "loop_held_ms": step,
        },
        tables,
        wanted_of(figures, step),
    )


BENCHMARK = Benchmark(
    "kite", __doc__, measure, packages=("neo-async", "msgspec", "kiteconnect"), rounds=15
)

if __name__ == "__main__":
    BENCHMARK.main()
