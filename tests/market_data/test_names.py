"""Instruments by any of their names: looked up, searched, and corrected where they are wrong."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import InvalidField, InvalidOrder, Segment, UsageError
from neo_async.market_data.contract_query import ExpiryWords, read_contract
from neo_async.market_data.nearest_names import nearest_instruments, nearest_underlyings
from neo_async.market_data.option_selection import choose_expiry
from neo_async.market_data.resolver import InstrumentResolver
from neo_async.market_data.scrip_master_files import Loaded, ScripMaster
from neo_async.market_data.searching import search_tables, wanted_by
from neo_async.model.instrument_names import key_of, known_key
from neo_async.model.instruments import Instrument
from neo_async.wire.scripmaster import ScripMasterReader
from neo_async.wire.scripmaster_writer import write_scripmaster
from tests.conftest import SHARED

REAL_FILE = SHARED / "data" / "scripmaster" / "nse_cm.csv"

TODAY = date(2026, 11, 30)
EXPIRIES = (date(2026, 12, 1), date(2026, 12, 8), date(2026, 12, 29), date(2027, 1, 26))


def share(name: str, token: str, series: str = "EQ", **fields: Any) -> Instrument:
    return Instrument(
        segment=fields.pop("segment", Segment.NSE_CM),
        token=token,
        symbol=f"{name}-{series}",
        name=name,
        series=series,
        **fields,
    )


RELIANCE = share("RELIANCE", "2885", description="RELIANCE INDUSTRIES LTD")
ITC = share("ITC", "1660", description="ITC LTD")
MITCON = share("MITCON", "7", description="MITCON CONSULTANCY")
ITBEES = share("ITBEES", "19084", description="NIP IND ETF IT")
NIFTY = msgspec.structs.replace(share("NIFTY", "26000"), symbol="NIFTY", series="", tick_size=0.0)
CASH = [
    RELIANCE,
    share("RELIANCE", "12713", "BL"),
    MITCON,
    ITC,
    share("ITCHOTELS", "8", description="ITC HOTELS LTD"),
    ITBEES,
    share("ITBEES", "19086", "BL"),
    share("SBIN", "3045"),
    share("SBIN", "9001", "N5"),
    share("BOND", "9002", "N1"),
    share("BOND", "9003", "N2"),
    share("BAJAJ-AUTO", "16669"),
    NIFTY,
]


def contract(name: str, expiry: date, strike: float | None, kind: str) -> Instrument:
    text = f"{strike:g}{kind}" if strike else "FUT"
    number = EXPIRIES.index(expiry) * 100_000 + int(strike or 1)
    return Instrument(
        segment=Segment.NSE_FO,
        token=f"{len(name)}{number}{'12'[kind == 'PE']}",
        symbol=f"{name}{expiry:%y%b%d}{text}".upper(),
        name=name,
        kind="OPTIDX" if strike else "FUTIDX",
        lot_size=65,
        expiry=expiry,
        strike=strike,
        option_type=kind,
        underlying_token="26000" if name == "NIFTY" else "26009",
    )


CONTRACTS = [
    contract(name, expiry, strike, kind)
    for name in ("NIFTY", "BANKNIFTY", "FINNIFTY")
    for expiry in EXPIRIES
    for strike in (24400.0, 24450.0, 24500.0, 24550.0, 24600.0)
    for kind in ("CE", "PE")
] + [contract("NIFTY", expiry, None, "") for expiry in EXPIRIES[2:]]


def master_of(instruments: Iterable[Instrument], *, day: date = TODAY, bad: int = 0) -> ScripMaster:
    listed = list(instruments)
    reader = ScripMasterReader(TODAY)
    reader.feed(write_scripmaster(listed))
    reader.finish()
    loaded = Loaded(
        segment=listed[0].segment,
        instruments=len(reader.table),
        bad_rows=(),
        bad_row_count=bad,
        day=day,
        address="",
        is_stale=False,
    )
    return ScripMaster(reader.table, loaded, day.toordinal())


def resolver_of(*masters: ScripMaster) -> InstrumentResolver:
    by_segment = {master.loaded.segment.value: master for master in masters}
    return InstrumentResolver(by_segment, TODAY.toordinal)


CASH_MASTER, CONTRACT_MASTER = master_of(CASH), master_of(CONTRACTS)
BOTH = resolver_of(CASH_MASTER, CONTRACT_MASTER)


# --- names that need no scrip master ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (RELIANCE, "nse_cm|2885"),
        ("nse_cm|2885", "nse_cm|2885"),
        ("nse_cm:2885", "nse_cm|2885"),
        ("NSE_CM:2885", "nse_cm|2885"),
        ("nse_cm|Nifty 50", "nse_cm|Nifty 50"),
        ("nse_cm:nifty 50", "nse_cm|Nifty 50"),
        ("Nifty Bank", "nse_cm|Nifty Bank"),
        ("sensex", "bse_cm|SENSEX"),
        ("NIFTY", "nse_cm|Nifty 50"),
        ("nse_cm:BANKNIFTY", "nse_cm|Nifty Bank"),
        ("nse_cm|Nifty Of Tomorrow", "nse_cm|Nifty Of Tomorrow"),
    ],
)
def test_keys_and_indices_are_read_without_a_scrip_master(name: Any, key: str) -> None:
    assert key_of(name) == known_key(name) == key
    assert resolver_of().key(name) == key


@pytest.mark.parametrize(
    "name",
    ["", "|", "nse_cm|", "nse|1", "NSE:1", ":1", "nse_cm|1|2", "a,b", 2885, None, b"1"],
)
def test_what_names_no_instrument_is_refused_with_what_does(name: Any) -> None:
    with pytest.raises(InvalidField, match=r"must be an Instrument, a key such as 'nse_cm.2885'"):
        BOTH.key(name)


@given(st.sampled_from(list(Segment)), st.integers(0, 10**12))
def test_the_key_of_an_instrument_is_read_as_itself(segment: Segment, token: int) -> None:
    one = msgspec.structs.replace(RELIANCE, segment=segment, token=str(token))
    assert resolver_of().key(one.key) == resolver_of().key(one) == one.key


@given(st.text(max_size=30))
def test_any_text_is_a_key_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert BOTH.key(text).partition("|")[0] in list(Segment)


# --- names that are looked up -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "instrument"),
    [
        ("nse_cm:RELIANCE-EQ", RELIANCE),
        ("nse_cm|RELIANCE-EQ", RELIANCE),
        ("RELIANCE-EQ", RELIANCE),
        ("reliance-eq", RELIANCE),
        ("RELIANCE", RELIANCE),
        ("nse_cm:2885", RELIANCE),
        ("NIFTY", NIFTY),
        ("Nifty 50", None),
        ("nse_cm|Nifty 50", NIFTY),
        ("SBIN", CASH[7]),
        ("NIFTY 01DEC 24500 CE", contract("NIFTY", EXPIRIES[0], 24500, "CE")),
        ("nse_fo:NIFTY JAN FUT", contract("NIFTY", EXPIRIES[3], None, "")),
    ],
)
def test_a_name_that_fits_one_instrument_means_it(name: str, instrument: Instrument | None) -> None:
    if instrument is None:
        assert BOTH.key(name) == "nse_cm|Nifty 50"
    else:
        assert BOTH.instrument(name) == instrument


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ITBES", "no such symbol in nse_cm, nse_fo: did you mean ITBEES-EQ (token 19084)?"),
        ("nse_cm:RELAINCE-EQ", "no such symbol in nse_cm: did you mean RELIANCE-EQ (token 2885)?"),
        ("nse_cm:RELIANCE-BE", "did you mean RELIANCE-EQ (token 2885)?"),
        ("nse_cm|999", "no such token in nse_cm"),
        ("BOND", "fits BOND-N1 (nse_cm|9002), BOND-N2 (nse_cm|9003): choose one of them"),
        ("nse_fo:NIFTY", "is an underlying with many contracts in nse_fo"),
        ("NIFTY 24500 CE", "fits NIFTY26DEC0124500CE (nse_fo|"),
        ("NIFTY 01DEC 24525 CE", "the nearest are NIFTY26DEC0124500CE, NIFTY26DEC0124550CE"),
        ("nse_fo:NIFTY26DEC0124525CE", "did you mean NIFTY26DEC0124500CE (token"),
        ("bse_cm:RELIANCE", "is not loaded: await neo.instruments.load(Segment.BSE_CM) first"),
    ],
)
def test_a_name_that_fits_none_or_several_is_answered_with_the_right_ones(
    name: str, words: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        BOTH.instrument(name)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"instrument={name!r}: ")


def test_without_a_scrip_master_a_symbol_says_what_to_load() -> None:
    with pytest.raises(InvalidField, match=r"await neo.instruments.load\(Segment.NSE_CM\) first"):
        resolver_of().key("RELIANCE-EQ")


def test_a_symbol_in_two_segments_is_not_guessed() -> None:
    other = master_of([msgspec.structs.replace(ITC, segment=Segment.BSE_CM, token="500875")])
    with pytest.raises(InvalidField, match=r"fits ITC-EQ \(nse_cm\|1660\), ITC-EQ \(bse_cm"):
        resolver_of(CASH_MASTER, other).instrument("ITC-EQ")


def test_a_symbol_is_ruled_out_by_a_complete_scrip_master_of_today_alone() -> None:
    with pytest.raises(InvalidOrder) as caught:
        BOTH.check_symbol(Segment.NSE_CM, "ITBEES")
    assert str(caught.value) == (
        "symbol='ITBEES': is no trading symbol of nse_cm today: did you mean ITBEES-EQ "
        "(token 19084)?"
    )
    assert BOTH.absence("nse_cm|999") == "nse_cm has no token 999 today"
    for fine in ("nse_cm|2885", "nse_cm|26009", "nse_cm|Nifty 50", "bse_cm|1"):
        assert BOTH.absence(fine) == ""
    for master in (master_of(CASH, day=date(2026, 11, 27)), master_of(CASH, bad=1)):
        uncertain = resolver_of(master)
        uncertain.check_symbol(Segment.NSE_CM, "ITBEES")
        assert uncertain.absence("nse_cm|999") == ""


@pytest.mark.parametrize(
    ("segment", "name", "found"),
    [
        (Segment.NSE_FO, "NIFTY", (Segment.NSE_FO, "NIFTY")),
        (None, "nifty", (Segment.NSE_FO, "NIFTY")),
        (None, "nse_cm|Nifty 50", (Segment.NSE_FO, "NIFTY")),
        (None, "Nifty Bank", (Segment.NSE_FO, "BANKNIFTY")),
        (None, NIFTY, (Segment.NSE_FO, "NIFTY")),
        (None, CONTRACTS[0], (Segment.NSE_FO, "NIFTY")),
        (None, "nse_cm|26000", (Segment.NSE_FO, "NIFTY")),
        (None, "SENSEX", (Segment.BSE_FO, "SENSEX")),
        (Segment.MCX_FO, "CRUDEOIL", (Segment.MCX_FO, "CRUDEOIL")),
    ],
)
def test_an_underlying_is_found_by_its_name_its_index_or_a_contract(
    segment: Segment | None, name: Any, found: tuple[Segment, str]
) -> None:
    assert BOTH.underlying(segment, name) == found


def test_an_underlying_without_contracts_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidField, match=r"nse_fo has no contracts of it: did you mean NIFTY\?"):
        BOTH.underlying(Segment.NSE_FO, "NIFTI")
    with pytest.raises(InvalidField, match=r"give the segment, such as Segment.NSE_FO"):
        BOTH.underlying(None, "GOLD")
    with pytest.raises(InvalidField, match=r"has no contracts in .*: did you mean NIFTY\?"):
        BOTH.underlying(None, "NIFTI")


# --- searching ----------------------------------------------------------------------------------


def search(text: str, **filters: Any) -> list[str]:
    conditions = {"kind": None, "expiry": None, "strike": None, "option": None} | filters
    tables = [CASH_MASTER.table, CONTRACT_MASTER.table]
    return [one.symbol for one in search_tables(tables, text, wanted_by(**conditions))]


@pytest.mark.parametrize(
    ("text", "first", "count"),
    [
        ("NIFTY 24500 CE", "NIFTY26DEC0124500CE", 4),
        ("nifty 24500ce", "NIFTY26DEC0124500CE", 4),
        ("NIFTY 01DEC 24500 CE", "NIFTY26DEC0124500CE", 1),
        ("NIFTY 1 DEC 24500 call", "NIFTY26DEC0124500CE", 1),
        ("NIFTY 24500 PE 2026-12-08", "NIFTY26DEC0824500PE", 1),
        ("BANKNIFTY 24500CE 2026-12-08", "BANKNIFTY26DEC0824500CE", 1),
        ("NIFTY DEC FUT", "NIFTY26DEC29FUT", 1),
        ("NIFTY 26DEC FUT", "NIFTY26DEC29FUT", 1),
        ("NIFTY JAN 2027 FUT", "NIFTY27JAN26FUT", 1),
        ("NIFTY 24500", "NIFTY26DEC0124500CE", 8),
        ("NIFTY 24525 CE", None, 0),
        ("NIFTY26DEC0124500CE", "NIFTY26DEC0124500CE", 1),
        ("ITC", "ITC-EQ", 1),
        ("itc", "ITC-EQ", 1),
        ("IT", "ITC-EQ", 4),
        ("RELIANCE-EQ", "RELIANCE-EQ", 1),
        ("Nifty 50", "NIFTY", 1),
        ("hotels itc", "ITCHOTELS-EQ", 1),
        ("INDUSTRIES", "RELIANCE-EQ", 1),
        ("TCON", "MITCON-EQ", 1),
        ("FINNIFTY 24500 CE", "FINNIFTY26DEC0124500CE", 4),
    ],
)
def test_searching_finds_the_nearest_meaning_first(
    text: str, first: str | None, count: int
) -> None:
    found = search(text)
    assert (found[0] if found else None, len(found)) == (first, count)


def test_the_exact_name_comes_before_longer_ones() -> None:
    assert search("NIFTY")[0] == "NIFTY"
    assert not [one for one in search("NIFTY") if one.startswith(("FIN", "BANK"))]
    assert search("ITCH") == ["ITCHOTELS-EQ"]


def test_words_and_filters_hold_together() -> None:
    assert search("NIFTY 24500 CE", expiry="2026-12-08") == ["NIFTY26DEC0824500CE"]
    assert search("NIFTY 24500 CE", option="pe") == []
    assert search("NIFTY DEC", option="CE", strike=(24500, 24500)) == [
        "NIFTY26DEC0124500CE",
        "NIFTY26DEC0824500CE",
        "NIFTY26DEC2924500CE",
    ]
    with pytest.raises(UsageError, match=r"expiry='soon': must be a datetime.date"):
        search("NIFTY", expiry="soon")


def test_26dec_is_a_day_and_a_month_of_2026() -> None:
    query = read_contract("NIFTY 26DEC CE")
    assert query is not None
    assert query.expiries == (ExpiryWords(12, 26), ExpiryWords(12, None, 2026))


@pytest.mark.parametrize(
    "text", ["NIFTY", "24500 CE", "NIFTY 24500 CE 24600", "NIFTY CE PE", "A B", ""]
)
def test_what_is_no_contract_is_none(text: str) -> None:
    assert read_contract(text) is None


@given(st.text(max_size=100))
def test_no_text_breaks_a_search(text: str) -> None:
    read_contract(text)
    search(text)


# --- options by distance ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (0, EXPIRIES[0]),
        (1, EXPIRIES[1]),
        ("this week", EXPIRIES[0]),
        ("Next  Week", EXPIRIES[1]),
        ("next month", EXPIRIES[2]),
        (EXPIRIES[3], EXPIRIES[3]),
        ("2026-12-29", EXPIRIES[2]),
    ],
)
def test_an_expiry_is_chosen_by_date_number_or_words(choice: Any, expected: date) -> None:
    assert choose_expiry("NIFTY", EXPIRIES, choice, TODAY) == expected


@pytest.mark.parametrize("choice", [-1, 4, True, "this month", "2026-12-02", date(2020, 1, 1)])
def test_an_expiry_that_is_not_listed_is_answered_with_those_that_are(choice: Any) -> None:
    with pytest.raises(UsageError, match="NIFTY has 2026-12-01, 2026-12-08, 2026-12-29"):
        choose_expiry("NIFTY", EXPIRIES, choice, TODAY)


# --- what is nearest ----------------------------------------------------------------------------

needs_file = pytest.mark.skipif(not REAL_FILE.exists(), reason="needs the broker's scrip master")


@pytest.fixture(scope="module")
def real() -> ScripMaster:
    reader = ScripMasterReader(TODAY, Segment.NSE_CM)
    reader.feed(REAL_FILE.read_bytes())
    reader.finish()
    return msgspec.structs.replace(CASH_MASTER, table=reader.table)


@needs_file
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("ITBEES", "ITBEES-EQ"),
        ("RELAINCE", "RELIANCE-EQ"),
        ("RELIANCE-BE", "RELIANCE-EQ"),
        ("HDFCBNK", "HDFCBANK-EQ"),
        ("SBINN-EQ", "SBIN-EQ"),
        ("TATAMOTOR", "TATAMOTORS-EQ"),
        ("BANKNIFY", "BANKNIFTY"),
    ],
)
def test_real_names_are_corrected(wrong: str, right: str, real: ScripMaster) -> None:
    assert nearest_instruments(wrong, [real.table])[0].symbol == right


@needs_file
def test_real_names_mean_the_share(real: ScripMaster) -> None:
    resolver = resolver_of(real)
    for name, symbol in (("RELIANCE", "RELIANCE-EQ"), ("ITC", "ITC-EQ"), ("SBIN", "SBIN-EQ")):
        assert resolver.instrument(name).symbol == symbol
    symbols = [one.symbol for one in search_tables([real.table], "ITC", wanted_by(*[None] * 4))]
    assert symbols == ["ITC-EQ", "ITC-BL"]


@pytest.mark.real_time("it measures how long the event loop is held")
def test_a_correction_among_a_hundred_thousand_rows_takes_milliseconds() -> None:
    many = [
        msgspec.structs.replace(
            CONTRACTS[0],
            token=str(number),
            name=(name := f"NAME{number // 500}"),
            symbol=f"{name}26DEC{20_000 + number % 500 * 50}CE",
        )
        for number in range(100_000)
    ]
    table = master_of(many).table

    def took(call: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
        return min(times)

    for wrong in ("NAMX7", "NAME7626DEC20025CE", "XQZWV", "N" * 60, "NAME9999"):
        assert took(lambda text=wrong: nearest_instruments(text, [table])) < 0.005  # type: ignore[misc]
        assert took(lambda text=wrong: nearest_underlyings(text, [table])) < 0.005  # type: ignore[misc]
