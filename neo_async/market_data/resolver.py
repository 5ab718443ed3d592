"""The instrument that a name means, by the scrip masters that are loaded.

Every call of the client that takes an instrument reads its name here. A key, `nse_cm|2885`, is
never looked up, so that it works without a scrip master and costs nothing. Anything else is looked
up in what is loaded; nothing is downloaded.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from neo_async.errors import InvalidField, InvalidOrder, UsageError
from neo_async.market_data.contract_query import ContractQuery, nearest_strikes, read_contract
from neo_async.market_data.nearest_names import did_you_mean, nearest_underlyings, ordinary
from neo_async.market_data.scrip_master_files import ScripMaster
from neo_async.model.enums import Segment
from neo_async.model.indices import INDEX_UNDERLYINGS, exact_index_name, index_key, index_number
from neo_async.model.instrument_names import is_token, key_of, read_name
from neo_async.model.instrument_table import InstrumentTable, Wanted
from neo_async.model.instruments import Instrument, InstrumentLike

_SHOWN: Final = 5
"""Most candidates that an error lists."""
_MOST_NEAR: Final = 3
"""Most contracts that are listed as the nearest."""

DERIVATIVES: Final = {Segment.NSE_CM: Segment.NSE_FO, Segment.BSE_CM: Segment.BSE_FO}
"""The segment of the derivatives of a cash segment's shares and indices."""


class InstrumentResolver:
    """Looks names up in the scrip masters by segment, which may grow."""

    def __init__(self, masters: Mapping[str, ScripMaster], day_number: Callable[[], int]) -> None:
        """`day_number` gives the ordinal of today in India."""
        self._masters = masters
        self._day_number = day_number

    def key(self, name: InstrumentLike) -> str:
        """Return the key of an instrument: `nse_cm|2885`, or `nse_cm|Nifty 50` of an index. Raises
        InvalidField as `instrument` does."""
        key = key_of(name)
        if key is None or self._is_symbol(key):
            return self.instrument(name).key
        return key

    def keys(self, names: Iterable[InstrumentLike]) -> dict[str, InstrumentLike]:
        """Return instruments by their keys, without repeats. Raises InvalidField as `key` does."""
        if isinstance(names, str | Instrument):
            raise UsageError(f"instruments={reprlib.repr(names)}: must be a list of instruments")
        return {self.key(name): name for name in names}

    def instrument(self, name: InstrumentLike) -> Instrument:
        """Return the instrument that a name means. Raises InvalidField when none has the name or
        several do, with the candidates, and where the scrip master is not loaded."""
        if isinstance(name, Instrument):
            return name
        segment, text = read_name(name)
        if not is_token(text) and (index := index_key(segment, text)):
            return self._index(name, index)
        tables = self._tables(name, segment)
        found = [one for table in tables for one in _candidates(table, segment, text)]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(f"{one.symbol} ({one.key})" for one in found[:_SHOWN])
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise InvalidField("instrument", name, f"fits {listed}{more}: choose one of them")
        raise InvalidField("instrument", name, self._why_not_found(segment, text, tables))

    def by_symbol(self, segment: Segment | str, symbol: str) -> Instrument:
        """Return the instrument of a segment and a trading symbol, or a token. Raises InvalidField
        where the scrip master is not loaded or has none."""
        return self.instrument(f"{segment}|{symbol}")

    def check_symbol(self, segment: str, symbol: str) -> None:
        """Raise InvalidOrder, with the nearest symbols, when the segment certainly has no such
        trading symbol today: its scrip master is loaded, of today and complete."""
        master = self._masters.get(segment)
        if master is None or not master.is_complete_on(self._day_number()):
            return
        if master.table.by_symbol(symbol) is None:
            near = did_you_mean(symbol, [master.table])
            rule = f"is no trading symbol of {segment} today"
            raise InvalidOrder("symbol", symbol, f"{rule}: {near}" if near else rule)

    def check_symbol_anywhere(self, symbol: str) -> None:
        """Raise InvalidOrder when a text is the name of instruments in a loaded scrip master, and
        not a trading symbol."""
        tables = [master.table for master in self._masters.values()]
        is_name = any(table.without_expiry(symbol) for table in tables)
        if is_name and not any(table.by_symbol(symbol) for table in tables):
            raise InvalidOrder("symbol", symbol, f"is a name: {did_you_mean(symbol, tables)}")

    def absence(self, key: str) -> str:
        """Return that today's scrip master has no such instrument; empty when it has, or when that
        is not certain."""
        segment, _, token = key.partition("|")
        master = self._masters.get(segment)
        if master is None or not is_token(token) or not master.is_complete_on(self._day_number()):
            return ""
        if master.table.has_token(token) or index_number(segment, token) is not None:
            return ""
        return f"{segment} has no token {token} today"

    # --- underlyings ----------------------------------------------------------------------------

    def underlying(self, segment: Segment | None, name: InstrumentLike) -> tuple[Segment, str]:
        """Return the segment of an underlying's contracts and its name there: `nse_fo`, `NIFTY` of
        `nse_cm|Nifty 50`. Raises InvalidField where the segment is not known, and where its scrip
        master is loaded and has no contract of it."""
        own_segment, text = self._underlying_name(name)
        if segment is None:
            segment = own_segment or self._segment_of_contracts(text)
        master = self._masters.get(segment)
        if master is not None and master.is_complete_on(self._day_number()):
            if not master.table.expiries(text):
                text = text.upper()
            if not master.table.expiries(text):
                near = nearest_underlyings(text, [master.table])
                hint = f": did you mean {' or '.join(near)}?" if near else ""
                raise InvalidField("underlying", text, f"{segment} has no contracts of it{hint}")
        return segment, text

    def _underlying_name(self, name: InstrumentLike) -> tuple[Segment | None, str]:
        """Return the segment of the contracts, where the name holds it, and the underlying."""
        if isinstance(name, Instrument):
            return DERIVATIVES.get(name.segment, name.segment), name.name
        segment, text = read_name(key_of(name) or name)
        index = f"{segment}|{exact_index_name(segment or '', text)}"
        if index in INDEX_UNDERLYINGS:
            text = INDEX_UNDERLYINGS[index]
        elif is_token(text):
            text = self.instrument(name).name
        contracts = None if segment is None else DERIVATIVES.get(segment, segment)
        return contracts, text.removesuffix("-EQ")

    def _segment_of_contracts(self, text: str) -> Segment:
        found = [
            master.loaded.segment
            for master in self._masters.values()
            if master.table.expiries(text.upper())
        ]
        if len(found) == 1:
            return found[0]
        if found:
            names = " and ".join(sorted(found))
            raise InvalidField("underlying", text, f"has contracts in {names}: choose the segment")
        raise InvalidField("underlying", text, self._why_no_contracts(text))

    def _why_no_contracts(self, text: str) -> str:
        near = nearest_underlyings(text, [master.table for master in self._masters.values()])
        if near:
            loaded = ", ".join(sorted(self._masters))
            return f"has no contracts in {loaded}: did you mean {' or '.join(near)}?"
        return (
            "no loaded scrip master has contracts of it: load the segment that has, or give the "
            "segment, such as Segment.NSE_FO"
        )

    # --- details --------------------------------------------------------------------------------

    def _index(self, name: str, key: str) -> Instrument:
        """Return the row of an index in the scrip master, which lists few of them."""
        segment, _, text = key.partition("|")
        master = self._masters.get(segment)
        if master is not None:
            number = index_number(segment, text)
            symbol = INDEX_UNDERLYINGS.get(key, text)
            find = master.table.by_symbol if number is None else master.table.by_token
            if one := find(number or symbol):
                return one
        raise InvalidField(
            "instrument",
            name,
            f"is an index that no loaded scrip master lists: quotes, candles and feeds take it as "
            f"{key!r}",
        )

    def _is_symbol(self, key: str) -> bool:
        """Return whether a key that looks like that of an index which this package does not list
        is to be looked up as a symbol in lower case."""
        segment, _, text = key.partition("|")
        if is_token(text) or segment not in self._masters or exact_index_name(segment, text):
            return False
        return " " not in text or bool(_candidates(self._masters[segment].table, None, text))

    def _tables(self, name: str, segment: Segment | None) -> list[InstrumentTable]:
        masters = self._masters
        if segment is not None and segment not in masters:
            raise InvalidField(
                "instrument",
                name,
                f"the scrip master of {segment} is not loaded: await "
                f"neo.instruments.load(Segment.{segment.name}) first",
            )
        if not masters:
            raise InvalidField(
                "instrument",
                name,
                "no scrip master is loaded: await neo.instruments.load(Segment.NSE_CM) first, or "
                "give the key, such as 'nse_cm|2885'",
            )
        chosen = masters.values() if segment is None else [masters[segment]]
        return [master.table for master in chosen]

    def _why_not_found(
        self, segment: Segment | None, text: str, tables: list[InstrumentTable]
    ) -> str:
        where = ", ".join(sorted(self._masters)) if segment is None else str(segment)
        if any(table.expiries(text.upper()) for table in tables):
            return (
                f"is an underlying with many contracts in {where}: name one, such as its trading "
                f"symbol, or as '{text.upper()} 24500 CE'"
            )
        query = read_contract(text)
        if query is not None:
            contracts = [one for table in tables for one in _contracts(table, query)]
            near = ", ".join(one.symbol for one in nearest_strikes(query, contracts, _MOST_NEAR))
            return f"no such contract in {where}{near and f': the nearest are {near}'}"
        if is_token(text):
            keys = [one.key for table in tables if (one := table.by_token(text))]
            if segment is None and keys:
                return f"a token needs its segment: {' or '.join(map(repr, keys))}"
            return f"no such token in {where}"
        near = did_you_mean(text, tables)
        return f"no such symbol in {where}{near and f': {near}'}"


def _candidates(table: InstrumentTable, segment: Segment | None, text: str) -> list[Instrument]:
    """Return the instruments of a table that a text fits."""
    plain = text.upper()
    if segment is not None and is_token(text):
        one = table.by_token(text)
    else:
        one = table.by_symbol(text) or table.by_symbol(plain)
    if one is not None:
        return [one]
    if named := ordinary(table.without_expiry(plain)):
        return named
    query = read_contract(text)
    if query is None:
        return []
    return [one for one in _contracts(table, query) if query.strike in (None, one.strike)]


def _contracts(table: InstrumentTable, query: ContractQuery) -> list[Instrument]:
    """Return the contracts that a query in words means, at any strike."""
    wanted = Wanted(query.kind, option_type=query.option_type)
    return [one for one in table.select(query.name, wanted) if query.has_expiry(one)]
