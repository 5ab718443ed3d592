"""Market data: the official SDK and our client ask the same of a far end that knows neither, and
read the same from the exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from neo_async import NeoClient, RateLimits, Rejected, Segment
from neo_async.exchange import Exchange
from tests.contracts import NIFTY_FUTURE
from tests.data_broker import DataBroker
from tests.fake_servers import BASE, CREDENTIALS

Sdk = Any
Ours = Callable[..., Any]


@pytest.fixture
def broker(loop: Any) -> Iterator[DataBroker]:
    broker = DataBroker()
    loop.run(broker.__aenter__())
    yield broker
    loop.run(broker.__aexit__(None, None, None))


@pytest.fixture
def asking_sdk(broker: DataBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sdk]:
    """Not logged in: its data calls need the access token only."""
    neo_api_client = pytest.importorskip("neo_api_client")
    from neo_api_client.utils import neo_utility

    monkeypatch.setattr(neo_utility, "SESSION_PROD_BASE_URL", broker.url)
    monkeypatch.setattr(neo_utility, "PROD_BASE_URL", broker.url + BASE)
    sdk = neo_api_client.NeoAPI(consumer_key=CREDENTIALS.consumer_key)
    yield sdk
    sdk.api_client.rest_client.close()


@pytest.fixture
def asking_neo(broker: DataBroker, loop: Any) -> Iterator[NeoClient]:
    limits = RateLimits(orders=10_000, total=10_000)
    neo = NeoClient(CREDENTIALS, endpoints=broker.endpoints, limits=limits, totp="123456")
    loop.run(neo.login())
    yield neo
    loop.run(neo.logout())


def asked(broker: DataBroker) -> tuple[str, dict[str, list[str]], str]:
    """Of the last request: path to the letter, query, and who asked."""
    path, headers, _ = broker.requests[-1]
    return urlsplit(path).path, parse_qs(urlsplit(path).query), headers["authorization"]


def test_quotes_are_asked_for_by_the_same_path(
    broker: DataBroker, asking_sdk: Sdk, asking_neo: NeoClient, ours: Ours
) -> None:
    tokens = [("nse_cm", "1333"), ("nse_cm", "Nifty 50"), ("bse_cm", "SENSEX"), ("nse_fo", "9")]
    for kind in ("all", "ltp", "ohlc", "depth", "oi", "circuit_limits", "scrip_details", "52W"):
        rows = asking_sdk.quotes(
            [{"exchange_segment": segment, "instrument_token": token} for segment, token in tokens],
            kind,
        )
        theirs = asked(broker)
        quotes = ours(asking_neo.market.quotes([f"{s}|{t}" for s, t in tokens], filter=kind))
        assert asked(broker) == theirs
        assert not quotes.missing
        for row in rows:
            quote = quotes[f"{row['exchange']}|{row['exchange_token']}"]
            assert (quote.symbol, quote.last_price) == (row["display_symbol"], float(row["ltp"]))


def test_expiries_chains_and_candles_are_asked_for_by_the_same_query(
    broker: DataBroker, asking_sdk: Sdk, asking_neo: NeoClient, ours: Ours
) -> None:
    market = asking_neo.market
    day = date(2026, 6, 23)
    pairs: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
        (
            lambda: asking_sdk.expiries("nse_fo", "M&M"),
            lambda: market.expiries(Segment.NSE_FO, "M&M"),
        ),
        (
            lambda: asking_sdk.expiries("nse_fo", "NIFTY", "fut"),
            lambda: market.expiries(Segment.NSE_FO, "NIFTY", kind="fut"),
        ),
        (
            lambda: asking_sdk.option_chain("bse_fo", "SENSEX", "2026-06-23", "option", 20),
            lambda: market.option_chain(Segment.BSE_FO, "SENSEX", day, 20),
        ),
        (
            lambda: asking_sdk.option_chain("mcx_fo", "GOLD", instrument_type="fut"),
            lambda: market.futures_chain(Segment.MCX_FO, "GOLD"),
        ),
        (
            lambda: asking_sdk.historical_data("nse_cm|1333", "5min", "2026-06-01", "2026-06-23"),
            lambda: market.candles("nse_cm|1333", "5min", start=date(2026, 6, 1), end=day),
        ),
    ]
    for theirs, mine in pairs:
        theirs()
        expected = asked(broker)
        if expected[0].endswith("/details"):
            ours(mine())
        else:
            # The far end knows no underlying; that is beside the point.
            with pytest.raises(Rejected, match="Invalid instrument/code"):
                ours(mine())
        assert asked(broker) == expected


def test_quotes_of_the_exchange_are_the_same_to_both(
    exchange: Exchange, sdk: Sdk, neo: NeoClient, ours: Ours
) -> None:
    tokens = [("nse_cm", "1333"), ("nse_cm", "Nifty 50"), ("nse_fo", NIFTY_FUTURE), ("nse_cm", "0")]
    rows = sdk.quotes(
        [{"exchange_segment": segment, "instrument_token": token} for segment, token in tokens]
    )
    quotes = ours(neo.market.quotes([f"{segment}|{token}" for segment, token in tokens]))
    assert list(quotes.missing) == ["nse_cm|0"]
    assert {(row["exchange"], row["exchange_token"]) for row in rows} == set(tokens[:3])
    for row in rows:
        quote = quotes[f"{row['exchange']}|{row['exchange_token']}"]
        assert quote.symbol == row["display_symbol"]
        assert quote.last_price == float(row["ltp"])
        assert quote.close == float(row["ohlc"]["close"])
        levels = [level for level in row["depth"]["buy"] if level["quantity"] != "0"]
        assert [level.price for level in quote.bids] == [float(level["price"]) for level in levels]
    unknown = sdk.quotes([{"exchange_segment": "nse_cm", "instrument_token": "0"}])
    assert (unknown["stat"], unknown["stCode"]) == ("Not_Ok", 1009)


def test_chains_of_the_exchange_are_the_same_to_both(sdk: Sdk, neo: NeoClient, ours: Ours) -> None:
    listed = sdk.expiries("nse_fo", "NIFTY", "option")["expiries"]
    expiries = ours(neo.market.expiries(Segment.NSE_FO, "NIFTY", kind="option"))
    assert [day.isoformat() for day in expiries] == listed
    theirs = sdk.option_chain("nse_fo", "NIFTY", listed[0], "option", 40)["data"]
    chain = ours(neo.market.option_chain(Segment.NSE_FO, "NIFTY", expiries[0]))
    assert str(chain.lot_size) == theirs["common_data"]["mktLot"]
    for side in ("call", "put"):
        mine = {option.instrument: option for row in chain if (option := getattr(row, side))}
        assert len(mine) == len(theirs[side]) > 0
        for option in theirs[side]:
            own = mine[option["instrument"]["neoSymbol"]]
            assert own.last_price == float(option["quote"]["ltp"])
            assert own.volume == option["quote"]["volume"]
            assert own.open_interest == option["openInterest"]["current"]
    futures = sdk.option_chain("nse_fo", "NIFTY", instrument_type="fut")["data"]["fut"]
    mine = ours(neo.market.futures_chain(Segment.NSE_FO, "NIFTY"))
    assert [row.instrument for row in mine] == [row["inst"]["neoSymbol"] for row in futures]
    assert [row.last_price for row in mine] == [float(row["quote"]["ltp"]) for row in futures]


def test_candles_of_the_exchange_are_the_same_to_both(sdk: Sdk, neo: NeoClient, ours: Ours) -> None:
    rows = sdk.historical_data("nse_cm|1333", "15min", "2026-10-01", "2026-10-30")["data"][
        "candles"
    ]
    mine = ours(
        neo.market.candles("nse_cm|1333", "15min", start=date(2026, 10, 1), end=date(2026, 10, 30))
    )
    assert mine.time == [datetime.fromisoformat(row[0]) for row in rows]
    assert [list(candle)[1:6] for candle in zip(*mine.columns.values(), strict=True)] == [
        row[1:6] for row in rows
    ]
    too_long = sdk.historical_data("nse_cm|1333", "5min", "2026-01-01", "2026-10-30")
    assert too_long["status"] == "ERROR"
    assert too_long["fault"]["code"] == 400
