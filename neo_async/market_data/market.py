"""Market data on request: quotes, expiries, chains, candles.

Nothing here needs a subscription; for prices as they change there is the market feed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import date
from enum import StrEnum
from typing import Final, TypeAlias, TypeVar

import msgspec

from neo_async.base import logs
from neo_async.base.india import date_of
from neo_async.base.logs import Log, logger_of
from neo_async.errors import InvalidField, Rejected, ServerError, TransportError
from neo_async.market_data.instruments import Instruments
from neo_async.market_data.option_selection import ExpiryChoice, underlying_key
from neo_async.model.answer import Answer
from neo_async.model.enums import Segment
from neo_async.model.instrument_names import SPELLINGS
from neo_async.model.instruments import Instrument, InstrumentLike
from neo_async.model.market import (
    Candles,
    FuturesChain,
    Interval,
    OptionChain,
    Quote,
    QuoteFilter,
    Quotes,
)
from neo_async.model.spellings import member_of
from neo_async.session.requests import SessionRequests
from neo_async.transport.backoff import backoff
from neo_async.wire.candles import (
    CandleJoiner,
    CandleValues,
    Window,
    candle_instrument,
    candle_windows,
    candles_query,
    candles_within,
    read_candle_rows,
    read_candles,
)
from neo_async.wire.chains import (
    expiries_query,
    futures_query,
    options_query,
    read_expiries,
    read_futures,
    read_options,
)
from neo_async.wire.endpoints import CANDLES, CHAIN, EXPIRIES, QUOTES
from neo_async.wire.quotes import (
    UNKNOWN_INSTRUMENT,
    batches,
    match_quotes,
    quotes_path,
    read_quotes,
    wire_instrument,
)
from neo_async.wire.values import check_day

Item = TypeVar("Item")
Result = TypeVar("Result")
Code = TypeVar("Code", bound=StrEnum)
Chain = TypeVar("Chain", OptionChain, FuturesChain)

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of finished requests and the number of all requests."""

_AT_ONCE: Final = 4
"""Requests of one call that are under way at a time. More would not be faster than the limiter,
and every other read would have to queue behind them."""

_TRIES: Final = 3
"""Attempts to read one window of candles. Reading again costs little, and one failure must not cost
a whole range."""

_ROWS_AT_ONCE: Final = 1_000
"""Candles that are decoded or joined before others get their turn of the loop: below a
millisecond."""

_NOT_ANSWERED: Final = "not in the broker's answer: it does not have the instrument"


class _QuoteRound(msgspec.Struct):
    """The results of one call for quotes, over all of its requests."""

    found: dict[str, Quote] = {}
    refused: dict[str, Rejected] = {}
    is_answered: bool = False
    """Whether some request was not refused: then the refused ones have instruments at fault."""


class Market:
    """Market data on request, `neo.market`."""

    def __init__(
        self,
        session: SessionRequests,
        instruments: Instruments,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`instruments` reads the names of instruments. `clock` gives Unix seconds, by which the
        day is known."""
        self._session = session
        self._instruments = instruments
        self._resolver = instruments.resolver
        self._log = logger_of(logs.MARKET_DATA, session.ucc)
        self._clock = clock

    async def quotes(
        self,
        instruments: Iterable[InstrumentLike],
        *,
        filter: QuoteFilter | str = QuoteFilter.ALL,  # noqa: A002 - the broker's word for it
    ) -> Quotes:
        """Return the quotes of any number of instruments (an Instrument, `nse_cm|1333`, or a
        trading symbol of a scrip master that is loaded) and indices (`nse_cm|Nifty 50`).

        An instrument that the broker does not have is in `missing`, and the others have their
        quotes. Raises UsageError, and sends nothing, when one is malformed, or no loaded scrip
        master has its symbol.
        """
        wanted = _member("filter", filter, QuoteFilter)
        wire_names = {
            name: wire_instrument(self._resolver.key(name)) for name in _names(instruments)
        }
        round_ = _QuoteRound()

        async def ask(batch: list[str]) -> None:
            await self._collect_quotes(batch, wanted, round_)

        await _in_parallel(ask, batches(list(dict.fromkeys(wire_names.values()))))
        if round_.refused and not round_.is_answered:
            raise next(iter(round_.refused.values()))
        found: dict[str, Quote] = {}
        missing: dict[str, str] = {}
        for name, wire_name in wire_names.items():
            if (quote := round_.found.get(wire_name)) is not None:
                found[name] = msgspec.structs.replace(quote, instrument=name)
            else:
                refusal = round_.refused.get(wire_name)
                known = self._resolver.absence(wire_name)
                missing[name] = known or (str(refusal) if refusal else _NOT_ANSWERED)
        return Quotes(found, missing)

    async def expiries(
        self,
        segment: InstrumentLike,
        underlying: InstrumentLike | None = None,
        *,
        kind: str | None = None,
    ) -> list[date]:
        """Return the expiries of an underlying, nearest first; of every `kind` (`option`, `fut`)
        unless one is given.

        The underlying is given with the segment of its contracts, `(Segment.NSE_FO, "NIFTY")`, or
        alone where that is known: an Instrument, `nse_cm|Nifty 50`, or `NIFTY` where one loaded
        scrip master has its contracts.

        Raises UsageError when the loaded scrip master has no contracts of it, and Rejected when the
        broker does not have the underlying.
        """
        segment, underlying = self._underlying(segment, underlying)
        query = expiries_query(segment, underlying, kind)
        return await self._session.read(EXPIRIES, read_expiries, params=query)

    async def option_chain(
        self,
        segment: InstrumentLike,
        underlying: InstrumentLike | None = None,
        expiry: date | str | None = None,
        count: int = 40,
    ) -> OptionChain:
        """Return calls and puts by strike, `count` of each around the money, of the nearest expiry
        unless one is given, as a date or `2026-12-08`. The underlying is given as for `expiries`.

        Raises UsageError when the loaded scrip master has no contracts of it, and Rejected when the
        broker does not have the underlying.
        """
        where, name = self._underlying(segment, underlying)
        day = None if expiry is None else check_day("expiry", expiry)
        query = options_query(where, name, day, count)

        def read(answer: Answer) -> OptionChain:
            return read_options(answer, segment=where, underlying=name, expiry=day)

        return _log_odd(await self._session.read(CHAIN, read, params=query), self._log)

    async def futures_chain(
        self,
        segment: InstrumentLike,
        underlying: InstrumentLike | None = None,
        expiry: date | str | None = None,
    ) -> FuturesChain:
        """Return every futures contract of an underlying, or that of one expiry. The underlying is
        given as for `expiries`.

        Raises UsageError when the loaded scrip master has no contracts of it, and Rejected when the
        broker does not have the underlying.
        """
        where, name = self._underlying(segment, underlying)
        day = None if expiry is None else check_day("expiry", expiry)
        query = futures_query(where, name, day)

        def read(answer: Answer) -> FuturesChain:
            return read_futures(answer, segment=where, underlying=name)

        return _log_odd(await self._session.read(CHAIN, read, params=query), self._log)

    async def option(
        self,
        underlying: InstrumentLike,
        option: str,
        *,
        expiry: ExpiryChoice = 0,
        strikes_out: int = 0,
        segment: Segment | str | None = None,
    ) -> Instrument:
        """Return the option that is `strikes_out` strikes out of the money at the underlying's last
        price, which one request reads: `await neo.market.option("NIFTY", "CE", expiry="this week",
        strikes_out=2)`. The arguments and errors are those of `neo.instruments.option`.
        """
        contracts = self._instruments.contracts(underlying, segment)
        key = underlying_key(contracts)
        quote = (await self.quotes([key], filter=QuoteFilter.LAST_PRICE)).get(key)
        if quote is None or not quote.last_price:
            raise InvalidField(
                "underlying",
                underlying,
                f"the broker has no last price of {key}: neo.instruments.option(…, spot=…) takes "
                "one",
            )
        return self._instruments.option(
            contracts[0],
            option,
            spot=quote.last_price,
            expiry=expiry,
            strikes_out=strikes_out,
        )

    async def candles(
        self,
        instrument: InstrumentLike,
        interval: Interval | str,
        *,
        start: date | str,
        end: date | str | None = None,
        progress: Progress | None = None,
    ) -> Candles:
        """Return the candles from `start` to `end` (today unless given), both included, however
        long that is: a range that the broker does not answer at once is requested in portions. A
        candle whose time or prices cannot be read is left out, and a warning in the log names it.

        `progress` is called at the start and after each portion, with their number so far and the
        number of all.

        Raises UsageError, and sends nothing, when the loaded scrip master of today does not have
        the instrument.
        """
        name = self._resolver.key(instrument)
        wire_name = candle_instrument(name)
        if absence := self._resolver.absence(name):
            raise InvalidField("instrument", instrument, absence)
        width = _member("interval", interval, Interval)
        last = self._today() if end is None else check_day("end", end)
        windows = candle_windows(check_day("start", start), last, width)
        done = 0

        def report() -> None:
            if progress is not None:
                progress(done, len(windows))

        async def fetch(window: Window) -> list[CandleValues]:
            nonlocal done
            candles = await self._window(wire_name, width, window)
            done += 1
            report()
            return candles

        report()
        joiner = CandleJoiner(name, width)
        for candles in await _in_parallel(fetch, windows):
            for portion in _portions(candles):
                joiner.add(portion)
                await asyncio.sleep(0)
        return joiner.candles

    async def _collect_quotes(
        self, batch: list[str], wanted: QuoteFilter, round_: _QuoteRound
    ) -> None:
        """Request the quotes of a batch; where the broker refuses it as a whole, of its halves, so
        that the instruments at fault are found and the others get their quotes."""
        pending = [batch]
        refusals = 0
        is_answered = False
        # Twice the requests that find one instrument at fault: after that the broker seems to
        # refuse everything.
        most_refusals = 2 * len(batch).bit_length()
        while pending:
            part = pending.pop()
            try:
                quotes = await self._read_quotes(part, wanted)
            except Rejected as refusal:
                refusals += 1
                if len(part) > 1 and (is_answered or refusals <= most_refusals):
                    middle = len(part) // 2
                    pending += [part[middle:], part[:middle]]
                else:
                    round_.refused.update(dict.fromkeys(part, refusal))
            else:
                is_answered = round_.is_answered = True
                round_.found.update(match_quotes(part, quotes))

    async def _read_quotes(self, part: list[str], wanted: QuoteFilter) -> list[Quote]:
        path = quotes_path(part, wanted)
        try:
            return await self._session.read(QUOTES, read_quotes, suffix=path)
        except Rejected as refusal:
            if refusal.code != UNKNOWN_INSTRUMENT:
                raise
            return []  # the broker's answer when it has none of the instruments

    async def _window(
        self, instrument: str, interval: Interval, window: Window
    ) -> list[CandleValues]:
        query = candles_query(instrument, interval, window)
        attempt = 1
        while True:
            try:
                rows = await self._session.read(CANDLES, read_candle_rows, params=query)
                break
            except (TransportError, ServerError) as error:
                if attempt == _TRIES:
                    raise
                self._log.info("candles from %s to %s: %s; trying again", *window, error)
            await asyncio.sleep(backoff(attempt, base=0.5, cap=5.0))
            attempt += 1
        candles: list[CandleValues] = []
        odd: list[str] = []
        for portion in _portions(rows):
            candles += read_candles(portion, odd)
            await asyncio.sleep(0)
        if odd:
            self._log.warning(
                "candles of %s from %s to %s: %d left out, the first: %s",
                instrument,
                *window,
                len(odd),
                odd[0],
            )
        return candles_within(candles, window, interval)

    def _underlying(
        self, segment: InstrumentLike, underlying: InstrumentLike | None
    ) -> tuple[Segment, str]:
        """Return the segment of an underlying's contracts and its name, of one argument or two."""
        if underlying is None:
            return self._resolver.underlying(None, segment)
        return self._resolver.underlying(_member("segment", segment, Segment), underlying)

    def _today(self) -> date:
        return date_of(self._clock())


def _log_odd(chain: Chain, log: Log) -> Chain:
    """Log the rows of a chain that were left out, and return the chain."""
    for problem in chain.odd:
        log.warning("chain of %s: left out: %s", chain.underlying, problem)
    return chain


async def _in_parallel(
    work: Callable[[Item], Awaitable[Result]], items: Sequence[Item]
) -> list[Result]:
    """Return the results in the order of the items. The first failure cancels the rest."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Item) -> Result:
        async with room:
            return await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _portions(rows: list[Item]) -> Iterator[list[Item]]:
    return (rows[first : first + _ROWS_AT_ONCE] for first in range(0, len(rows), _ROWS_AT_ONCE))


def _names(instruments: Iterable[InstrumentLike]) -> list[str]:
    """Return the names as they were given, those of Instruments as keys, without repeats."""
    if isinstance(instruments, str | Instrument):
        raise InvalidField("instruments", instruments, "must be a list of instruments, not one")
    names = [one.key if isinstance(one, Instrument) else one for one in instruments]
    for name in names:
        if not isinstance(name, str):
            raise InvalidField("instrument", name, SPELLINGS)
    return list(dict.fromkeys(names))


def _member(field: str, value: object, vocabulary: type[Code]) -> Code:
    try:
        return member_of(vocabulary, value)
    except ValueError as error:
        raise InvalidField(field, value, str(error)) from None
