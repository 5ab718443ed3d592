from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from neo_async.model.instrument_table import InstrumentTable, Wanted
from neo_async.model.instruments import Instrument, Rows, Shared, Texts
from neo_async.wire.scripmaster import ScripMasterReader
from neo_async.wire.scripmaster_writer import write_scripmaster
from tests.wire.test_scripmaster import OPTION, SHARE, TODAY, instruments

ANY = Wanted()

EQUITY = Shared("EQ", "", 1, 0.05, 2, 1, None, "", "", None, 1, 1, 1, 1, SHARE.segment)


def table_of(*rows: Instrument) -> InstrumentTable:
    reader = ScripMasterReader(TODAY)
    reader.feed(write_scripmaster(rows))
    reader.finish()
    assert not reader.bad_rows
    return reader.table


def like(instrument: Instrument, **changes: object) -> Instrument:
    return msgspec.structs.replace(instrument, **changes)


rows_of_few_names = st.lists(
    st.builds(
        lambda row, name: msgspec.structs.replace(row, name=name),
        instruments(),
        st.sampled_from(["NIFTY", "NIF", "BANKNIFTY"]),
    ),
    unique_by=lambda row: row.token,
    max_size=12,
)


@given(rows_of_few_names)
def test_every_row_is_found_by_token_and_the_first_by_symbol(rows: list[Instrument]) -> None:
    table = table_of(*rows)
    assert len(table) == len(rows)
    first_of: dict[str, Instrument] = {}
    for row in rows:
        first_of.setdefault(row.symbol, row)
        assert table.by_token(row.token) == row
    for symbol, row in first_of.items():
        assert table.by_symbol(symbol) == row
        assert table.by_symbol(symbol) is table.by_symbol(symbol)
    assert table.by_token("no such") is table.by_symbol("no such") is None


@given(rows_of_few_names, st.data())
def test_a_search_finds_exactly_what_is_asked_for_in_order(
    rows: list[Instrument], data: st.DataObject
) -> None:
    dates = sorted({row.expiry for row in rows if row.expiry} | {TODAY})
    strikes = sorted({row.strike for row in rows if row.strike} | {100.0})
    days = data.draw(st.none() | st.tuples(*[st.sampled_from(dates)] * 2))
    prices = data.draw(st.none() | st.tuples(*[st.sampled_from(strikes)] * 2))
    option = data.draw(st.sampled_from(["", "CE", "PE"]))
    kind = data.draw(st.sampled_from(["", "OPT", "FUT", "OPTIDX"]))
    found = table_of(*rows).select("NIFTY", Wanted(kind, days, prices, option))
    expected = [
        row
        for row in rows
        if row.name == "NIFTY"
        and (days is None or (row.expiry is not None and days[0] <= row.expiry <= days[1]))
        and (prices is None or (row.strike is not None and prices[0] <= row.strike <= prices[1]))
        and (not option or row.option_type == option)
        and row.kind.startswith(kind)
    ]
    assert sorted(found, key=lambda row: row.token) == sorted(expected, key=lambda row: row.token)
    order = [(row.expiry or TODAY.min, row.strike or -1.0, row.option_type) for row in found]
    assert order == sorted(order)


def test_a_name_is_itself_or_else_the_start_of_names() -> None:
    names = ("NIFTY", "NIFTYNXT50", "BANKNIFTY")
    table = table_of(*(like(SHARE, token=str(n), name=name) for n, name in enumerate(names)))
    assert table.names_like("NIFTY") == ["NIFTY"]
    assert sorted(table.names_like("NIF")) == ["NIFTY", "NIFTYNXT50"]
    assert sorted(table.names_like("")) == sorted(names)
    assert table.names_like("FTY") == table.names_like("NIFTYY") == []


def test_names_that_come_later_are_found_too() -> None:
    table = InstrumentTable()
    shared = table.share(EQUITY)

    def add(name: str) -> None:
        table.add(
            Rows(
                [name],
                [name],
                [name],
                Texts.of([""]),
                Texts.of([""]),
                [shared],
                [0.0],
                [0.0],
                [0.0],
                [0],
            )
        )

    add("TCS")
    assert table.names_like("INF") == []
    assert table.mentioning("NFY", ANY) == []
    add("INFY")
    assert table.names_like("INF") == ["INFY"]
    assert [row.symbol for row in table.mentioning("NFY", ANY)] == ["INFY"]


def test_parts_of_symbols_and_descriptions_are_found() -> None:
    table = table_of(
        like(SHARE, token="1", symbol="TCS-EQ", name="TCS", description="TATA CONSULTANCY"),
        like(SHARE, token="2", symbol="TTML-EQ", name="TTML", description="TATA TELE"),
        like(OPTION, token="3", description=""),
    )
    assert [row.token for row in table.mentioning("TATA", ANY)] == ["1", "2"]
    assert [row.token for row in table.mentioning("22250", ANY)] == ["3"]
    assert [row.token for row in table.mentioning("-EQ", ANY)] == ["1", "2"]
    assert table.mentioning("TATA", Wanted(option_type="CE")) == []


def test_the_end_of_one_description_and_the_start_of_the_next_are_not_a_match() -> None:
    table = table_of(
        like(SHARE, token="1", symbol="A", description="XXAB"),
        like(SHARE, token="2", symbol="B", description="CDXX"),
        like(SHARE, token="3", symbol="C", description="ABCD"),
    )
    assert [row.token for row in table.mentioning("ABCD", ANY)] == ["3"]
    assert [row.token for row in table.mentioning("XX", ANY)] == ["1", "2"]


def test_expiries_are_those_of_a_name_and_kind() -> None:
    future = like(OPTION, token="2", kind="FUTIDX", strike=None, option_type="")
    later = like(future, token="3", expiry=OPTION.expiry.replace(month=9))
    table = table_of(later, OPTION, like(future, symbol="F"), SHARE)
    assert table.expiries("NIFTY") == [OPTION.expiry, later.expiry]
    assert table.expiries("NIFTY", "OPT") == [OPTION.expiry]
    assert table.expiries("ITBEES") == table.expiries("NOBODY") == []


def test_tables_larger_than_a_part_of_the_index_lose_nothing() -> None:
    table = InstrumentTable()
    shared = table.share(EQUITY)
    count = 100_000
    for first in range(0, count, 1000):
        texts = [str(n) for n in range(first, first + 1000)]
        names = [f"NAME{n % 50_000}" for n in range(first, first + 1000)]
        none, zeros = Texts.of([""] * 1000), [0.0] * 1000
        table.add(
            Rows(texts, texts, names, none, none, [shared] * 1000, zeros, zeros, zeros, [0] * 1000)
        )
    for token in ("0", "39999", "40000", "99999"):
        found = table.by_token(token)
        assert found is not None
        assert found.token == found.symbol == token
        assert table.by_symbol(token) is found
    assert not table.has_token(str(count))
    assert [row.token for row in table.select("NAME7", ANY)] == ["7", "50007"]
    assert table.names_like("NAME49999") == ["NAME49999"]
    assert len(table.names_like("NAME")) == 50_000
