"""The prices of plans, without a broker: from quotes where the feed is silent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from neo_async import NeoError
from neo_async.exits.prices import PlanPrices
from neo_async.model.market import Quote, Quotes

INSTRUMENT = "nse_cm|19084"


class SilentFeed:
    """A market feed that never has a tick."""

    def start(self) -> None: ...
    async def subscribe(self, instruments: Sequence[str]) -> None: ...
    async def unsubscribe(self, instruments: Sequence[str]) -> None: ...
    async def close(self) -> None: ...


async def test_a_quote_without_a_price_that_can_be_is_passed_over() -> None:
    answers: list[Any] = [math.nan, None, -1.0, math.inf, 0.0, NeoError("down"), 39.05]
    seen: list[Decimal] = []
    came = asyncio.Event()

    def note(price: Decimal) -> None:
        seen.append(price)
        came.set()

    async def quotes(instruments: Sequence[str]) -> Quotes:
        answer = answers.pop(0)
        if isinstance(answer, NeoError):
            raise answer
        return Quotes({name: Quote(instrument=name, last_price=answer) for name in instruments}, {})

    feed: Any = SilentFeed()
    prices = PlanPrices(lambda on_tick: feed, quotes, lambda segment: True)
    prices.watch(INSTRUMENT, note)
    async with asyncio.timeout(60):
        await came.wait()
    assert seen == [Decimal("39.05")]
    assert answers == []
    assert prices.age(INSTRUMENT) < 1
    prices.ignore(INSTRUMENT, note)
    await prices.close()
