from __future__ import annotations

import csv
import gzip
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from neo_async.errors import NeoError, ProtocolError
from neo_async.model.answer import Answer
from neo_async.model.enums import Segment
from neo_async.model.instruments import Instrument
from neo_async.wire.scripmaster import (
    HEADER,
    ScripMasterReader,
    choose_file,
    parse_scripmaster,
    read_file_list,
)
from neo_async.wire.scripmaster_writer import DERIVATIVES_HEADER, write_scripmaster
from tests.conftest import SHARED

REAL_FILE = SHARED / "data" / "scripmaster" / "nse_cm.csv"
real_file = pytest.mark.skipif(not REAL_FILE.exists(), reason="the broker's file is not here")

TODAY = date(2026, 6, 1)
COLUMNS = [name.strip(" ;") for name in HEADER.split(",")]

SHARE = Instrument(
    segment=Segment.NSE_CM,
    token="19084",
    symbol="ITBEES-EQ",
    name="ITBEES",
    series="EQ",
    description="NIP IND ETF IT",
    isin="INF204KB15V2",
    tick_size=0.01,
    freeze_quantity=3312133,
    lower_band=24.15,
    upper_band=36.22,
    face_value=10.0,
)
OPTION = Instrument(
    segment=Segment.NSE_FO,
    token="71472",
    symbol="NIFTY26JUN22250CE",
    name="NIFTY",
    series="XX",
    kind="OPTIDX",
    lot_size=65,
    expiry=date(2026, 6, 30),
    strike=22250.0,
    option_type="CE",
)


def file_with(*rows: dict[str, str], of: Instrument = SHARE) -> str:
    """A file of rows like one instrument's, with some columns changed."""
    lines = write_scripmaster([of]).decode().splitlines()
    columns = [name.strip(" ;") for name in lines[0].split(",")]
    template = dict(zip(columns, lines[1].split(","), strict=True))
    changed = [
        ",".join((template | {"pSymbol": str(n)} | row).values()) for n, row in enumerate(rows)
    ]
    return "\n".join([lines[0], *changed])


def read_one(of: Instrument = SHARE, **columns: str) -> Instrument:
    read = parse_scripmaster(file_with(columns, of=of), TODAY)
    assert read.bad_rows == ()
    (instrument,) = read.instruments
    return instrument


def reason(of: Instrument = SHARE, **columns: str) -> str:
    read = parse_scripmaster(file_with(columns, of=of), TODAY)
    assert read.instruments == ()
    (bad,) = read.bad_rows
    assert bad.line == 2
    return bad.reason


# --- the layout of derivatives --------------------------------------------------------------------

LIVE_ROW = (
    "56526,XX,nse_fo,OPTIDX,NIFTY,NIFTY2692221000PE,PE,NIFTY22SEP2621000.00PE,,26000,,,,,,5,65,"
    "1474554600,-1,2,2.1e+06,NSE,OPTIDX,1474554600,1471564800,1474554600,1471564800,0,0,0,0,0,,0,0,"
    "1472316328,,,,,,,,,,FO,,,,,,,1474502400,1474554600,,,,15.0000,Cash,,1,1,1801.00,65,0,2015,5,1,"
    "1,1,0,0,1,0,1e+12,1,0,1801,false"
)
"""A row of the broker's nse_fo.csv of 2026-08-28."""


def test_a_contract_is_written_like_the_brokers_own_row() -> None:
    live = f"{DERIVATIVES_HEADER}\n{LIVE_ROW}\n"
    (contract,) = parse_scripmaster(live, date(2026, 8, 28)).instruments
    assert (contract.strike, contract.expiry) == (21000.0, date(2026, 9, 22))
    assert (contract.freeze_quantity, contract.underlying_token) == (1801, "26000")
    header, row = write_scripmaster([contract]).decode().splitlines()
    assert header == DERIVATIVES_HEADER
    names = header.split(",")
    assert len(names) == 79
    ours = dict(zip(names, row.split(","), strict=True))
    theirs = dict(zip(names, LIVE_ROW.split(","), strict=True))
    # When the row was made, and the day's base price: neither is a field of an instrument.
    for name in ("pLocalUpdateTime", "pScripBasePrice"):
        del ours[name], theirs[name]
    assert ours == theirs


def test_a_future_has_a_contract_key_without_a_strike() -> None:
    future = msgspec.structs.replace(
        OPTION, kind="FUTIDX", strike=None, option_type="", expiry=date(2026, 8, 25)
    )
    header, row = write_scripmaster([future]).decode().splitlines()
    columns = dict(zip(header.split(","), row.split(","), strict=True))
    assert columns["pScripRefKey"] == "NIFTY25AUG26FUT"
    assert columns["pOptionType"] == "XX"


@pytest.mark.parametrize("strike", [21000.0, 5.0, 55187.55, 100_000.0, 22.5])
def test_a_strike_is_exact_whatever_its_notation(strike: float) -> None:
    option = msgspec.structs.replace(OPTION, strike=strike)
    assert parse_scripmaster(write_scripmaster([option]), TODAY).instruments == (option,)


# --- the real file ------------------------------------------------------------------------------


@real_file
def test_the_header_is_the_brokers_blanks_included() -> None:
    with REAL_FILE.open() as file:
        assert file.readline() == f"{HEADER}\n"
    assert len(COLUMNS) == 78


@real_file
def test_every_row_of_the_real_file_is_read() -> None:
    read = parse_scripmaster(REAL_FILE.read_bytes(), date(2023, 4, 14))
    assert len(read.instruments) == 7532
    assert read.bad_rows == ()
    by_symbol = {row.symbol: row for row in read.instruments}
    assert by_symbol["ITBEES-EQ"] == SHARE
    assert by_symbol["NHIT-BL"].freeze_quantity is None
    assert by_symbol["M&MFIN-N1"].name == "M&MFIN"
    # Above 9,999.99 rupees the columns in paise are rounded to six digits; the text is not.
    page = by_symbol["PAGEIND-EQ"]
    assert (page.lower_band, page.upper_band) == (33929.95, 41469.85)


@real_file
def test_indices_have_no_tick_and_no_band() -> None:
    read = parse_scripmaster(REAL_FILE.read_bytes(), date(2023, 4, 14))
    indices = [row for row in read.instruments if row.tick_size == 0]
    assert {row.token for row in indices} == {"26000", "26009", "26037", "26074"}
    assert all(row.lower_band is None and row.upper_band is None for row in indices)
    assert all(row.lot_size >= 1 for row in indices)


@real_file
def test_the_real_file_survives_being_written_and_read_again() -> None:
    read = parse_scripmaster(REAL_FILE.read_bytes(), date(2023, 4, 14))
    assert parse_scripmaster(write_scripmaster(read.instruments), date(2023, 4, 14)) == read


@real_file
def test_what_is_written_has_the_real_files_values() -> None:
    today = date(2023, 4, 14)
    real = REAL_FILE.read_text()
    written = write_scripmaster(parse_scripmaster(real, today).instruments).decode()
    same = (
        *("pSymbol", "pGroup", "pExchSeg", "pInstType", "pSymbolName", "pTrdSymbol", "pOptionType"),
        *("pISIN", "pDesc", "dTickSize", "lExpiryDate", "pExpiryDate", "lPrecision"),
        *("dStrikePrice", "pExchange", "iBoardLotQty", "pSettlementType"),
    )
    for theirs, ours in zip(
        csv.reader(real.splitlines()), csv.reader(written.splitlines()), strict=True
    ):
        a, b = dict(zip(COLUMNS, theirs, strict=True)), dict(zip(COLUMNS, ours, strict=True))
        assert {name: a[name] for name in same} == {name: b[name] for name in same}


# --- scales ---------------------------------------------------------------------------------------


def test_money_is_paise_and_strikes_are_hundredfold() -> None:
    assert read_one(dTickSize="5").tick_size == 0.05
    assert read_one(dTickSize="0.25").tick_size == 0.0025
    assert read_one(of=OPTION, dStrikePrice="2010000.0").strike == 20100.0


@pytest.mark.parametrize(
    ("text", "lower", "upper", "band"),
    [
        ("16.65-20.35", "1665", "2035", (16.65, 20.35)),
        ("33929.95-41469.85", "3.393e+06", "4.14698e+06", (33929.95, 41469.85)),
        ("", "1665", "2035", (16.65, 20.35)),
        ("high-low", "1665", "2035", (16.65, 20.35)),
        ("", "1.0221e+06", "1.0231e+06", (10221.0, 10231.0)),
        ("", "0", "0", (None, None)),
        ("", "-1", "-1", (None, None)),
        ("", "", "", (None, None)),
    ],
)
def test_a_band_is_the_text_or_else_the_columns(
    text: str, lower: str, upper: str, band: tuple[float | None, float | None]
) -> None:
    read = read_one(pCreditRating=text, dLowPriceRange=lower, dHighPriceRange=upper)
    assert (read.lower_band, read.upper_band) == band


@pytest.mark.parametrize(
    ("segment", "number", "expiry"),
    [
        # Seconds since 1980 in India.
        ("nse_fo", "1467297000", date(2026, 6, 30)),
        ("nse_fo", "1456410600", date(2026, 2, 24)),
        # Plain Unix seconds at the end of a UTC day, which is the next day in India.
        ("mcx_fo", "1778803199", date(2026, 5, 14)),
        ("bse_fo", "1782777599", date(2026, 6, 29)),
        # The other segment's scale, as nothing else is near today.
        ("nse_fo", "1782777599", date(2026, 6, 29)),
        ("bse_fo", "1467297000", date(2026, 6, 30)),
    ],
)
def test_an_expiry_counts_from_its_segments_epoch(segment: str, number: str, expiry: date) -> None:
    today = expiry - timedelta(days=3)
    text = file_with({"pExchSeg": segment, "lExpiryDate": number}, of=OPTION)
    assert parse_scripmaster(text, today).instruments[0].expiry == expiry
    again = {"pExchSeg": segment, "lExpiryDate": "-1", "pExpiryDate": number}
    assert parse_scripmaster(file_with(again, of=OPTION), today).instruments[0].expiry == expiry


def test_minus_one_means_none() -> None:
    read = read_one(lLotSize="-1", lMultiplier="-1", lExpiryDate="-1", dStrikePrice="-1")
    assert (read.lot_size, read.multiplier, read.expiry, read.strike) == (1, 1, None, None)
    assert read_one(lFreezeQty="99999999").freeze_quantity is None
    assert read_one(lFreezeQty="0").freeze_quantity is None


def test_a_future_has_no_strike_and_no_option_type() -> None:
    read = read_one(of=OPTION, pInstType="FUTIDX", pOptionType="XX", dStrikePrice="-1")
    assert (read.strike, read.option_type) == (None, "")


def test_stray_blanks_are_dropped() -> None:
    assert read_one(pSymbolName="ITBEES   ", pTrdSymbol=" ITBEES-EQ").name == "ITBEES"


# --- rows and files that are not as they should be ------------------------------------------------


def test_a_bad_row_is_named_and_spoils_no_other() -> None:
    text = file_with({}, {"dTickSize": "five"}, {}, {"pSymbol": "77", "pTrdSymbol": ""}, {})
    read = parse_scripmaster(text, TODAY)
    assert [row.token for row in read.instruments] == ["0", "2", "4"]
    assert [(bad.line, bad.token) for bad in read.bad_rows] == [(3, "1"), (5, "77")]


def test_the_reason_says_what_is_wrong() -> None:
    assert reason(pSymbol="") == "no token"
    assert reason(pTrdSymbol="") == "no trading symbol"
    assert "'nse_xx'" in reason(pExchSeg="nse_xx")
    assert "'many'" in reason(lLotSize="many")
    assert reason(of=OPTION, lExpiryDate="-1", pExpiryDate="") == "a derivative without an expiry"
    assert reason(of=OPTION, dStrikePrice="-1") == "an option without a strike"
    assert reason(of=OPTION, lExpiryDate="86400") == (
        "expiry 86400 is 1980-01-02 or 1970-01-02, neither of them near 2026-06-01"
    )
    assert "79 columns" in reason(pDesc="ACME, INC")


def test_a_token_is_good_once() -> None:
    read = parse_scripmaster(file_with({"pSymbol": "1"}, {"pSymbol": "1"}), TODAY)
    assert len(read.instruments) == 1
    assert [bad.reason for bad in read.bad_rows] == ["the token is that of an earlier row"]


def test_quotes_are_understood_and_a_stray_one_spoils_its_own_row_only() -> None:
    quoted = parse_scripmaster(file_with({"pDesc": '"ACME, INC"'}), TODAY)
    assert quoted.instruments[0].description == "ACME, INC"
    stray = parse_scripmaster(file_with({"pDesc": '"ACME'}, {}), TODAY)
    assert [row.token for row in stray.instruments] == ["1"]
    assert [bad.token for bad in stray.bad_rows] == ["0"]


@pytest.mark.parametrize("number", ["nan", "inf", "1e400", "9" * 5000])
def test_a_number_out_of_this_world_spoils_its_row_only(number: str) -> None:
    for column in ("dTickSize", "lLotSize", "lPrecision", "lFreezeQty", "lMultiplier"):
        assert reason(**{column: number})
    assert reason(of=OPTION, lExpiryDate=number)
    assert reason(of=OPTION, dStrikePrice=number)
    assert reason(pCreditRating="", dLowPriceRange="1", dHighPriceRange=number)


def test_whole_numbers_may_be_written_as_floats() -> None:
    read = read_one(of=OPTION, lLotSize="65.0", lExpiryDate="1467297000.0", lFreezeQty="1755.0")
    assert (read.lot_size, read.expiry, read.freeze_quantity) == (65, date(2026, 6, 30), 1755)
    assert reason(lLotSize="65.5") == "'65.5' is not a whole number"


def test_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    content = b"\xef\xbb\xbf" + write_scripmaster([SHARE]).replace(b"\n", b"\r\n") + b"\r\n"
    read = parse_scripmaster(content, TODAY)
    assert (read.instruments, read.bad_rows) == ((SHARE,), ())


@pytest.mark.parametrize("content", ["", "<html></html>", HEADER.replace("pTrdSymbol", "symbol")])
def test_a_file_that_is_none_is_a_protocol_error(content: str) -> None:
    with pytest.raises(ProtocolError, match=r"header lacks .*pTrdSymbol"):
        parse_scripmaster(content, TODAY)


def quoted(text: str) -> str:
    lines = text.splitlines()
    return "".join(",".join(f'"{field}"' for field in line.split(",")) + "\n" for line in lines)


def columns_without_freeze(text: str) -> str:
    """The file with an empty last field in every row."""
    header, *rows = text.splitlines()
    return "\n".join([header, *(row.rpartition(",")[0] + "," for row in rows)]) + "\n"


PLAIN = write_scripmaster([SHARE, OPTION]).decode()


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        PLAIN.encode().rstrip(b"\n"),
        quoted(PLAIN).encode(),
        quoted(PLAIN).replace("\n", "\r\n").encode("utf-8-sig"),
        PLAIN.replace(",", " , ").encode(),
        quoted(PLAIN).replace(",", " , ").encode(),
        PLAIN.replace("\n", ",\r\n").encode(),
        b"\r\n" + PLAIN.encode(),
        gzip.compress(PLAIN.encode()),
        gzip.compress(PLAIN.encode("utf-8-sig")[:500]) + gzip.compress(PLAIN.encode()[497:]),
        gzip.compress(PLAIN.encode()) + b"\0" * 512,
    ],
    ids=[
        "plain",
        "without a last line end",
        "quoted",
        "quoted, CRLF, byte order mark",
        "blanks around fields",
        "blanks around quoted fields",
        "a comma behind the last field",
        "a blank line first",
        "gzip",
        "gzip of two members",
        "padded gzip",
    ],
)
def test_the_same_file_is_read_in_every_dressing(content: bytes) -> None:
    for size in (len(content), 7):
        reader = ScripMasterReader(TODAY)
        for start in range(0, len(content), size):
            reader.feed(content[start : start + size])
        reader.finish()
        assert (list(reader.table), reader.bad_rows) == ([SHARE, OPTION], [])


def test_the_last_field_of_a_row_may_be_empty_with_either_line_end() -> None:
    other = msgspec.structs.replace(SHARE, token="2", freeze_quantity=None)
    plain = write_scripmaster([SHARE, other]).decode()
    for end in ("\n", "\r\n"):
        content = columns_without_freeze(plain).replace("\n", end)
        read = parse_scripmaster(content, TODAY)
        assert [row.freeze_quantity for row in read.instruments] == [None, None]
        assert read.bad_rows == ()


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode()[:-40],
        PLAIN.encode().rstrip(b"\n")[: PLAIN.encode().rindex(b"\n", 0, -1) + 3],
        gzip.compress(PLAIN.encode())[:-9],
        gzip.compress(PLAIN.encode()) + gzip.compress(PLAIN.encode())[:20],
    ],
)
def test_a_file_that_is_cut_off_is_an_error_and_no_shorter_list(content: bytes) -> None:
    with pytest.raises(ProtocolError, match="cut off"):
        parse_scripmaster(content, TODAY)


def test_gzip_that_cannot_be_inflated_is_a_protocol_error() -> None:
    content = bytearray(gzip.compress(PLAIN.encode()))
    content[20] ^= 0xFF
    with pytest.raises(ProtocolError):
        parse_scripmaster(bytes(content), TODAY)


def test_a_line_without_end_is_a_protocol_error_before_the_memory_is_full() -> None:
    reader = ScripMasterReader(TODAY)
    for _ in range(4):
        reader.feed(b"x" * 32_768)
    with pytest.raises(ProtocolError, match="a line of over"):
        reader.feed(b"x")


@pytest.mark.parametrize("column", ["lFreezeQty", "lLotSize", "lPrecision", "lMultiplier"])
@pytest.mark.parametrize("number", ["99999999999999999999", "1e300", "9" * 5000, "inf", "many"])
def test_a_row_with_a_number_beyond_any_is_left_out_and_named(column: str, number: str) -> None:
    read = parse_scripmaster(file_with({column: number}), TODAY)
    assert read.instruments == ()
    assert [row.line for row in read.bad_rows] == [2]


# --- both ways ------------------------------------------------------------------------------------

words = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789&-", min_size=1, max_size=12)
cents = st.integers(1, 10_000_000).map(lambda paise: paise / 100)


@st.composite
def instruments(draw: st.DrawFn) -> Instrument:
    segment = draw(st.sampled_from(Segment))
    option_type, kind, strike, expiry = "", "", None, None
    if not segment.is_cash:
        kind = draw(st.sampled_from(["FUTIDX", "FUTSTK", "OPTIDX", "OPTSTK"]))
        expiry = TODAY + timedelta(days=draw(st.integers(-7, 8 * 365)))
        if kind.startswith("OPT"):
            option_type = draw(st.sampled_from(["CE", "PE"]))
            strike = draw(cents)
    bands = draw(st.none() | st.tuples(cents, cents))
    return Instrument(
        segment=segment,
        token=draw(st.integers(1, 10**6).map(str)),
        symbol=draw(words),
        name=draw(words),
        series=draw(st.sampled_from(["", "EQ", "BE", "XX"])),
        kind=kind,
        description=draw(words),
        isin=draw(words),
        lot_size=draw(st.integers(1, 10**6)),
        tick_size=draw(st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.0025, 1.0])),
        precision=draw(st.sampled_from([2, 4])),
        multiplier=draw(st.integers(1, 1000)),
        expiry=expiry,
        strike=strike,
        option_type=option_type,
        freeze_quantity=draw(st.none() | st.integers(1, 10**7)),
        lower_band=bands and min(bands),
        upper_band=bands and max(bands),
    )


@given(st.lists(instruments(), unique_by=lambda row: row.token, max_size=5))
def test_what_is_written_is_read_back(rows: list[Instrument]) -> None:
    read = parse_scripmaster(write_scripmaster(rows), TODAY)
    assert (list(read.instruments), read.bad_rows) == (rows, ())


@given(st.text(max_size=200), st.integers(0, 80))
def test_no_row_is_ever_fatal(noise: str, commas: int) -> None:
    read = parse_scripmaster(f"{HEADER}\n{noise}{',' * commas}\n", TODAY)
    assert read.instruments == ()


# --- piece by piece ---------------------------------------------------------------------------


@given(
    st.lists(instruments(), unique_by=lambda row: row.token, max_size=4),
    st.lists(st.integers(0, 4000)),
)
def test_a_file_is_read_the_same_however_it_is_cut(rows: list[Instrument], cuts: list[int]) -> None:
    content = write_scripmaster(rows) + b"17,torn row\n"
    ends = sorted({min(cut, len(content)) for cut in cuts} | {len(content)})
    reader = ScripMasterReader(TODAY)
    start = 0
    for end in ends:
        reader.feed(content[start:end])
        start = end
    reader.finish()
    assert list(reader.table) == rows
    assert [(bad.line, bad.token) for bad in reader.bad_rows] == [(len(rows) + 2, "17")]


def test_the_last_line_may_lack_its_end() -> None:
    content = write_scripmaster([SHARE]).rstrip(b"\n")
    assert parse_scripmaster(content, TODAY).instruments == (SHARE,)


def test_rows_of_another_segment_are_bad_rows_of_a_segments_file() -> None:
    reader = ScripMasterReader(TODAY, Segment.NSE_FO)
    reader.feed(write_scripmaster([OPTION, SHARE]))
    reader.finish()
    assert list(reader.table) == [OPTION]
    assert [bad.reason for bad in reader.bad_rows] == ["a row of nse_cm in the file of nse_fo"]


def test_all_bad_rows_are_counted_and_the_first_thousand_named() -> None:
    reader = ScripMasterReader(TODAY)
    reader.feed(f"{HEADER}\n".encode() + b"1,too short\n" * 1500)
    reader.finish()
    assert (reader.bad_row_count, len(reader.bad_rows)) == (1500, 1000)


def test_a_header_alone_is_a_file_without_instruments() -> None:
    assert parse_scripmaster(HEADER, TODAY).instruments == ()


def test_face_value_underlying_and_fractions_are_read() -> None:
    read = read_one(
        of=OPTION,
        pFaceValue="1000",
        pAssetCode="26000",
        dPriceNum="1",
        dPriceDen="100",
        dGenNum="5",
    )
    assert (read.face_value, read.underlying_token) == (10.0, "26000")
    fractions = (read.price_numerator, read.price_denominator)
    assert fractions == (1.0, 100.0)
    assert (read.general_numerator, read.general_denominator) == (5.0, 1.0)
    assert read_one(pFaceValue="-1", dPriceNum="-1", dGenDen="0").face_value is None


def test_columns_may_stand_elsewhere_and_those_that_are_luxury_may_lack() -> None:
    luxury = {"pAssetCode", "pFaceValue", "dPriceNum", "dPriceDen", "dGenNum", "dGenDen"}
    table = list(csv.reader(write_scripmaster([SHARE]).decode().splitlines()))
    kept = [n for n in reversed(range(len(COLUMNS))) if COLUMNS[n] not in luxury]
    text = "\n".join(",".join(line[n] for n in kept) for line in table)
    (read,) = parse_scripmaster(text, TODAY).instruments
    assert read == msgspec.structs.replace(SHARE, face_value=None)


padding = st.sampled_from(["", " ", "   "])


@given(st.data())
def test_blanks_and_decimals_change_nothing(data: st.DataObject) -> None:
    """Some versions of the files write `65.0`, some fill up with blanks."""
    number = {
        name: value + data.draw(st.sampled_from(["", ".0", ".00"]))
        for name, value in {
            "lLotSize": "65",
            "lFreezeQty": "1755",
            "dStrikePrice": "2225000",
            "dTickSize": "5",
            "lExpiryDate": "1467297000",
            "lPrecision": "2",
        }.items()
    }
    words = {"pTrdSymbol": OPTION.symbol, "pSymbolName": "NIFTY", "pOptionType": "CE"}
    columns = {
        name: data.draw(padding) + value + data.draw(padding)
        for name, value in (number | words).items()
    }
    read = read_one(of=OPTION, **columns)
    assert read == msgspec.structs.replace(OPTION, token="0", freeze_quantity=1755)


@given(
    st.sampled_from([Segment.NSE_FO, Segment.CDE_FO, Segment.BSE_FO, Segment.MCX_FO]),
    st.dates(date(2024, 1, 1), date(2040, 1, 1)),
    st.integers(0, 8 * 365),
    st.integers(0, 86_399),
    st.booleans(),
)
def test_an_expiry_is_its_date_whatever_its_scale_and_time(
    segment: Segment, today: date, days: int, seconds: int, is_swapped: bool
) -> None:
    expiry = today + timedelta(days=days)
    midnight = int(datetime(expiry.year, expiry.month, expiry.day, tzinfo=UTC).timestamp())
    since_1980 = (segment in (Segment.NSE_FO, Segment.CDE_FO)) != is_swapped
    # Midnight in India, of 1980 or of 1970; the second is read as the date in UTC.
    number = midnight + seconds - (19_800 + 315_513_000 if since_1980 else 0)
    text = file_with({"pExchSeg": segment, "lExpiryDate": str(number)}, of=OPTION)
    other = datetime.fromtimestamp(number, UTC).date() + timedelta(days=0 if since_1980 else 3653)
    assume(not is_swapped or not today - timedelta(10) <= other <= today + timedelta(8 * 366 + 3))
    assert parse_scripmaster(text, today).instruments[0].expiry == expiry


# --- which files there are --------------------------------------------------------------------

FOLDER = "https://lapi.kotaksecurities.com/wso2-scripmaster/v1/prod/2026-07-14"
FILES = [
    *(f"{FOLDER}/transformed/{name}.csv" for name in ("cde_fo", "mcx_fo", "nse_fo", "bse_fo")),
    f"{FOLDER}/transformed/nse_com.csv",
    f"{FOLDER}/transformed-v1/bse_cm-v1.csv",
    f"{FOLDER}/transformed-v1/nse_cm-v1.csv",
]


def test_every_segment_has_its_file() -> None:
    for segment in Segment:
        address = choose_file(FILES, segment)
        assert address is not None
        assert address.rpartition("/")[2].startswith(segment.value)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["nse_com.csv", "bse_cm.csv"], None),
        (["nse_com.csv", "nse_cm.csv"], "nse_cm.csv"),
        (["nse_cm.csv", "nse_cm-v1.csv"], "nse_cm-v1.csv"),
        (["nse_cm-v2.csv", "nse_cm-v10.csv", "nse_cm-v1.csv"], "nse_cm-v10.csv"),
        (["NSE_CM.csv?signature=x/y"], "NSE_CM.csv?signature=x/y"),
        (["nse_cm2.csv", "old_nse_cm.csv"], None),
        ([], None),
    ],
)
def test_a_file_is_chosen_by_its_name(names: list[str], chosen: str | None) -> None:
    # The code of the segment elsewhere in the address says nothing.
    folder = "https://files/nse_cm"
    address = choose_file([f"{folder}/{name}" for name in names], Segment.NSE_CM)
    assert address == (chosen and f"{folder}/{chosen}")


def test_an_address_that_is_none_is_passed_over() -> None:
    assert choose_file(["http://[::1/nse_cm.csv", *FILES], Segment.NSE_CM) == FILES[-1]


def test_the_file_list_is_read_and_anything_else_is_an_error() -> None:
    body = b'{"data":{"filesPaths":["https://f/nse_cm.csv"],"baseFolder":"https://f"}}'
    assert read_file_list(Answer(200, {}, body)) == ["https://f/nse_cm.csv"]
    for status, body in ((200, b"[]"), (200, b'{"data":{}}'), (403, b"{}"), (500, b"<html>")):
        with pytest.raises(NeoError):
            read_file_list(Answer(status, {}, body))
