"""Market data by request: quotes, expiries, chains and candles.

Needs the access token of an application and no login. Where candles come from: history.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Final

import msgspec

from neo_async.calendar import Calendar
from neo_async.exchange.engine.index_board import names_of
from neo_async.exchange.engine.indices import INDICES
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Index, Listing
from neo_async.exchange.history.history import History
from neo_async.exchange.history.synthetic import SyntheticHistory
from neo_async.exchange.rest import chains
from neo_async.exchange.rest.candles import (
    CandlesRefused,
    Row,
    candle_portions,
    read_request,
)
from neo_async.exchange.rest.chains import Contracts, unknown_instrument
from neo_async.exchange.rest.quotes import filtered, index_row, quote_row, read_query
from neo_async.exchange.rest.replies import Reply, encode, fault, json
from neo_async.exchange.venue import Venue
from neo_async.model.enums import Segment

_INDEX_OF: Final = {index.underlying: index for index in INDICES if index.underlying}
"""Indices by the name of their derivatives."""


class MarketData:
    def __init__(self, venue: Venue, seed: int, calendar: Calendar) -> None:
        self._venue = venue
        self._seed = seed
        self._calendar = calendar
        self._drawing = asyncio.Lock()
        """Lock held by the answer whose candles are drawn, so that others draw none in the same
        turn of the loop."""
        self._follow_market()

    def _follow_market(self) -> None:
        """Start over when there is another market, as after a reset."""
        self._market = self._venue.market
        self._histories: dict[tuple[Segment, str], SyntheticHistory] = {}

    def _present(self) -> MatchingEngine:
        if self._market is not self._venue.market:
            self._follow_market()
        return self._venue.now()

    # --- quotes -------------------------------------------------------------------------------

    def quotes(self, tail: str) -> Reply:
        """Answer the rows of the listed instruments, in an array at the root."""
        instruments, kind = read_query(tail)
        market = self._venue.now()
        rows = [filtered(row, kind) for name in instruments for row in self._rows(market, name)]
        if not rows:
            raise unknown_instrument()
        return json(rows)

    def _rows(self, market: MatchingEngine, instrument: str) -> Iterator[dict[str, object]]:
        """Yield the quote of an instrument; nothing for an unknown one."""
        segment, _, token = instrument.partition("|")
        if segment not in market.segments:
            return
        listing = market.listing_by_token(Segment(segment), token)
        if listing is not None:
            yield quote_row(market.market_snapshot(listing))
            return
        index = self._index(segment, token)
        if index is not None:
            yield index_row(self._venue.board.snapshot(index), token, market.now_ns)

    def _index(self, segment: str, text: str) -> Index | None:
        """Return the index of exactly this name or number, as the broker does."""
        index = self._venue.board.find(segment, text)
        return index if index is not None and text in names_of(index) else None

    # --- expiries and chains ------------------------------------------------------------------

    def expiries(self, query: Mapping[str, str]) -> Reply:
        return json(chains.expiries_body(self._contracts_of(query), chains.read_kind(query)))

    def chain(self, query: Mapping[str, str]) -> Reply:
        contracts = self._contracts_of(query)
        expiry = chains.read_expiry(query)
        market = self._venue.now()
        if chains.read_kind(query) == "fut":
            return json(chains.futures_chain_body(contracts, expiry, market.session_stats))
        count = chains.read_count(query)
        spot = self._spot(market, contracts)
        return json(chains.option_chain_body(contracts, expiry, count, spot, market.session_stats))

    def _contracts_of(self, query: Mapping[str, str]) -> Contracts:
        """Return the contracts listed today, without the expired ones."""
        segment, underlying = query.get("exchange", ""), query.get("underlying", "")
        market = self._venue.now()
        listed = (
            market.contracts(Segment(segment), underlying) if segment in market.segments else []
        )
        return Contracts(segment, underlying, listed)

    def _spot(self, market: MatchingEngine, contracts: Contracts) -> int:
        """Price of the underlying; of its nearest future when it is not listed; 0 if unknown."""
        name = contracts.underlying
        if name in _INDEX_OF:
            known = _INDEX_OF[name]
            index = self._venue.board.find(known.segment.value, known.token)
            if index is not None:
                return self._venue.board.snapshot(index).stats.last_price
        share = market.listing(Segment.NSE_CM, f"{name}-EQ") or market.listing(Segment.BSE_CM, name)
        if share is not None:
            return market.last_price(share)
        futures = sorted(contracts.futures, key=lambda future: future.expiry or date.max)
        return market.last_price(futures[0]) if futures else 0

    # --- candles ------------------------------------------------------------------------------

    async def candles(self, query: Mapping[str, str]) -> Reply:
        """Answer candles. Other tasks have their turn meanwhile: a month of minutes is slow to
        draw."""
        try:
            portions = self._candle_portions(query)
        except CandlesRefused as refused:
            return fault(400, refused.text)
        rows = await self._encoded(portions)
        return json({"status": "success", "interval": query["interval"], "data": {"candles": rows}})

    async def _encoded(self, portions: Iterator[list[Row]]) -> msgspec.Raw:
        """Encode the rows of all portions as one array."""
        encoded: list[bytes] = []
        async with self._drawing:
            for rows in portions:
                if rows:
                    encoded.append(encode(rows)[1:-1])
                await asyncio.sleep(0)
        return msgspec.Raw(b"[%b]" % b",".join(encoded))

    def _candle_portions(self, query: Mapping[str, str]) -> Iterator[list[Row]]:
        request = read_request(query)
        market = self._present()
        what = market.listing_by_token(request.segment, request.token) or self._index(
            request.segment, request.token
        )
        if what is None:
            raise CandlesRefused("Invalid neosymbol value")
        key = (what.segment, what.token)
        history = History(
            self._synthetic_history(what), self._venue.tape(), key, self._venue.opened, market.today
        )
        return candle_portions(request, history.minutes, history.day)

    def _synthetic_history(self, what: Listing | Index) -> SyntheticHistory:
        key = (what.segment, what.token)
        synthetic = self._histories.get(key)
        if synthetic is None:
            opening = self._opening(what)
            synthetic = self._histories[key] = SyntheticHistory(
                opening, self._seed, self._venue.opened, self._calendar
            )
        return synthetic

    def _opening(self, what: Listing | Index) -> Listing | Index:
        """Return it with its first base price, with which the synthetic history ends."""
        if isinstance(what, Listing):
            return msgspec.structs.replace(what, base_price=self._market.first_price(what))
        return next(index for index in INDICES if index.key == what.key)
