"""Decoding: 500 positions and 500 holdings from bytes to typed rows, against readers to dicts.

Every peer reads the same bytes; its rounds alternate with the others' on one core. Ours is what the
client calls: bytes to a list of typed structs, with the check that the answer is a success. The
result is thrown away inside the measured time, and the garbage collector stays on, since both are
part of what a program pays.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from benchmarks.harness import (
    Benchmark,
    Figure,
    Report,
    Wanted,
    at_least,
    cores,
    measure_calls,
    microseconds_after_collection,
    pin,
    readers_table,
)
from neo_async.model.answer import Answer
from neo_async.model.numbers import Number, Whole
from neo_async.model.portfolio import Holding, PositionRow
from neo_async.wire.portfolio import read_holdings, read_positions

ROWS = 500
DECODES = 20
"""Decodes in one round of one peer."""

OURS = "neo_async, typed structs"
JSON = "json.loads, untyped"
TYPED_ORJSON = "orjson, then int() and float()"
REFERENCE = ("orjson, untyped", "msgspec, untyped")

Peer = Callable[[], object]


def positions_body() -> bytes:
    """Return a v2 positions answer: half cash, half futures and options, some of it carried."""
    chance = random.Random(7)
    return _encode({"stat": "ok", "stCode": 200, "data": [_position(chance) for _ in range(ROWS)]})


def holdings_body() -> bytes:
    """Return a full holdings answer, 33 keys a row."""
    chance = random.Random(11)
    return _encode({"data": [_holding(chance) for _ in range(ROWS)]})


def _encode(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _position(chance: random.Random) -> dict[str, object]:
    derivative = chance.random() < 0.5
    lot = chance.choice((25, 75, 225, 550)) if derivative else 1
    bought, sold, carried = (lot * chance.randrange(0, 40) for _ in range(3))
    price = chance.randrange(1000, 400_000) / 100
    name = "".join(chance.choices("ABCDEFGHIJKLMNOPRSTUVY", k=chance.randrange(3, 11)))
    return {
        "actId": "ABCXYZ61",
        "brdLtQty": lot,
        "cfBuyAmt": f"{carried * price:.2f}",
        "cfSellAmt": "0.00",
        "cfBuyQty": str(carried),
        "cfSellQty": "0",
        "exSeg": "nse_fo" if derivative else "nse_cm",
        "buyAmt": f"{bought * price:.2f}",
        "sellAmt": f"{sold * price * 1.01:.2f}",
        "flBuyQty": str(bought),
        "flSellQty": str(sold),
        "prod": chance.choice(("NRML", "MIS") if derivative else ("CNC", "MIS")),
        "series": "XX" if derivative else "EQ",
        "tok": str(chance.randrange(100, 90_000)),
        "trdSym": f"{name}26JULFUT" if derivative else f"{name}-EQ",
        "optTp": "XX" if derivative else "- ",
        "stkPrc": "0.00",
        "type": "FUTSTK" if derivative else "EQ",
        "sym": name,
        "sqrFlg": "Y",
        "posFlg": "true",
        "lotSz": str(lot),
        "multiplier": "1",
        "precision": "2",
        "prcNum": "1",
        "prcDen": "1",
        "hsUpTm": "2026/07/24 12:57:46",
        "expDt": "28 Jul, 2026" if derivative else "NA",
        "exp": "1785196800" if derivative else "--",
        "genNum": "1",
        "genDen": "1",
        "dscQty": "",
        "upldPrc": "0.00",
        "updRecvTm": 1784878066658915084 + chance.randrange(10**12),
        "ltp": f"{price * 1.005:.2f}",
    }


def _holding(chance: random.Random) -> dict[str, object]:
    name = "".join(chance.choices("ABCDEFGHIJKLMNOPRSTUVY", k=chance.randrange(3, 11)))
    code = str(chance.randrange(1000, 99_999))
    quantity = chance.randrange(1, 2000)
    average = chance.randrange(100_000, 40_000_000) / 10_000
    closing = chance.randrange(1000, 400_000) / 100
    cost, worth = round(average * quantity, 4), round(closing * quantity, 4)
    return {
        "instrumentType": "Equity",
        "sector": "Information Technology",
        "instrumentToken": chance.randrange(1000, 99_999),
        "commonScripCode": f"{name}_LIMITED",
        "instrumentName": f"{name.title()} Industries Limited",
        "quantity": quantity,
        "averagePrice": average,
        "holdingCost": cost,
        "closingPrice": closing,
        "mktValue": worth,
        "scripId": f"{chance.getrandbits(160):040x}",
        "isAlternateScrip": "",
        "unrealisedGainLoss": round(worth - cost, 4),
        "sqGainLoss": round(chance.uniform(-50, 50), 4),
        "delGainLoss": round(chance.uniform(-50, 50), 4),
        "subTotal": 0,
        "prevDayLtp": 0,
        "subType": "EQUITY STOCK",
        "instrumentStatus": "ACTV",
        "marketLot": 1,
        "expiryDate": "",
        "optType": "",
        "strikePrice": "0.00",
        "symbol": name,
        "displaySymbol": name,
        "exchangeSegment": "nse_cm",
        "series": "EQ",
        "exchangeIdentifier": str(chance.randrange(100, 90_000)),
        "sellableQuantity": quantity,
        "securityType": "EQUITY STOCK",
        "securitySubType": "EQUITY STOCK",
        "logoUrl": f"https://www.kotaksecurities.com/stockit/stock_logos/{code}.png",
        "cmotCode": code,
    }


def number_fields(row: type[msgspec.Struct], sample: dict[str, object]) -> dict[type, list[str]]:
    """Return the wire names, by type, of the fields that are typed as numbers and sent as text."""
    fields: dict[type, list[str]] = {int: [], float: []}
    for field in msgspec.structs.fields(row):
        if isinstance(sample.get(field.encode_name), str) and field.type is not str:
            if field.type in (Whole, Whole | None):
                fields[int].append(field.encode_name)
            elif field.type in (Number, Number | None):
                fields[float].append(field.encode_name)
    return fields


def read_with_orjson(body: bytes, fields: dict[type, list[str]]) -> list[dict[str, Any]]:
    integers, floats = fields[int], fields[float]
    rows: list[dict[str, Any]] = orjson.loads(body)["data"]
    for row in rows:
        for name in integers:
            row[name] = int(row[name])
        for name in floats:
            row[name] = float(row[name])
    return rows


def peers_of(
    read: Callable[[Answer], Sequence[msgspec.Struct]], row: type[msgspec.Struct], body: bytes
) -> dict[str, Peer]:
    answer = Answer(200, {}, body)
    fields = number_fields(row, json.loads(body)["data"][0])
    _check_that_values_agree(read(answer), read_with_orjson(body, fields))
    orjson_untyped, msgspec_untyped = REFERENCE
    return {
        OURS: lambda: read(answer),
        JSON: lambda: json.loads(body),
        TYPED_ORJSON: lambda: read_with_orjson(body, fields),
        orjson_untyped: lambda: orjson.loads(body),
        msgspec_untyped: lambda: msgspec.json.decode(body),
    }


def _check_that_values_agree(
    ours: Sequence[msgspec.Struct], theirs: Sequence[dict[str, Any]]
) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for field in msgspec.structs.fields(mine):
            name, value = field.encode_name, getattr(mine, field.name)
            if name in other and value != other[name]:
                raise SystemExit(f"{name}: {value!r} here, {other[name]!r} from orjson")


def measure_peers(peers: Mapping[str, Peer], rounds: int) -> dict[str, Figure]:
    """Return the microseconds of one decode, by peer."""
    calls = {
        name: lambda peer=peer: microseconds_after_collection(peer, DECODES)
        for name, peer in peers.items()
    }
    return measure_calls(calls, rounds=rounds, warm_up=2)


def wanted_of(report: str, figures: dict[str, Figure]) -> list[Wanted]:
    ours = figures[OURS].median
    return [
        at_least(f"{report}: json.loads ÷ neo_async", 2.5, figures[JSON].median / ours),
        at_least(f"{report}: orjson typed ÷ neo_async", 1.0, figures[TYPED_ORJSON].median / ours),
    ]


def measure(arguments: argparse.Namespace) -> Report:
    """Measure both reports."""
    pin(cores()[1])
    bodies = {"positions": positions_body(), "holdings": holdings_body()}
    peers = {
        "positions": peers_of(read_positions, PositionRow, bodies["positions"]),
        "holdings": peers_of(read_holdings, Holding, bodies["holdings"]),
    }
    figures = {report: measure_peers(peers[report], arguments.rounds) for report in peers}
    tables = [
        readers_table(
            f"{report}: {ROWS} rows, {len(bodies[report]):,} bytes; {arguments.rounds} rounds of "
            f"{DECODES} decodes, garbage collector on",
            "µs",
            OURS,
            measured,
        )
        for report, measured in figures.items()
    ]
    return Report(
        {
            "rows": ROWS,
            "bytes": {report: len(body) for report, body in bodies.items()},
            "unit": "microseconds a decode, result freed, garbage collector on",
            "figures": figures,
        },
        tables,
        [one for report in figures for one in wanted_of(report, figures[report])],
    )


BENCHMARK = Benchmark(
    "decode", __doc__, measure, packages=("neo-async", "msgspec", "orjson"), rounds=25
)

if __name__ == "__main__":
    BENCHMARK.main()
