"""Reading the list of funds, however it comes."""

from __future__ import annotations

import gzip
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neo_async import ProtocolError
from neo_async.kite import Fund
from neo_async.kite.fund_file import FundFileReader
from tests.kite.far_end import PAYLOADS

PLAIN = (PAYLOADS / "instruments.csv").read_bytes()
HEADER, FIRST, *_ = PLAIN.decode().splitlines()
QUOTED = PLAIN + (
    b'INF179K01VY8,HDFC,"Small, Mid ""and\nLarge"" Fund",1,0,1.0,0.01,1.0,1.0,0.001,'
    b"payout,equity,direct,T2,10.5,\r\n"
)


def read(*pieces: bytes) -> FundFileReader:
    reader = FundFileReader()
    for piece in pieces:
        for _ in reader.feed(piece):
            pass
    reader.finish()
    return reader


def row(**changes: str) -> str:
    fields = dict(zip(HEADER.split(","), FIRST.split(","), strict=True)) | changes
    return ",".join(fields.values())


def test_names_with_commas_quotes_and_line_ends() -> None:
    fund = read(QUOTED).funds[-1]
    assert fund.name == 'Small, Mid "and\nLarge" Fund'
    assert (fund.redemption_allowed, fund.last_price_date) == (False, None)


@example([1], True)
@given(st.lists(st.integers(0, len(QUOTED)), max_size=6), st.booleans())
def test_the_list_is_the_same_however_it_is_cut(cuts: list[int], is_zipped: bool) -> None:
    body = gzip.compress(QUOTED, mtime=0) if is_zipped else QUOTED
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(places)]
    assert read(*pieces).funds == read(QUOTED).funds


def test_without_a_line_end_at_the_end() -> None:
    assert len(read(PLAIN.rstrip()).funds) == 4


def test_columns_may_move_and_new_ones_come() -> None:
    names, values = HEADER.split(","), FIRST.split(",")
    moved = ",".join([*reversed(names), "rating"]) + "\n" + ",".join([*reversed(values), "5"])
    assert read(moved.encode()).funds == read(PLAIN).funds[:1]


@pytest.mark.parametrize(
    "bad",
    [
        row(last_price="much"),
        row(purchase_allowed="maybe"),
        row(last_price_date="11/11/2016"),
        FIRST + ",surplus",
        "INF846K01DP8,AXIS",
    ],
)
def test_a_bad_row_costs_itself_only(bad: str) -> None:
    reader = read(f"{HEADER}\n{bad}\n{FIRST}\n".encode())
    assert (len(reader.funds), reader.bad_row_count) == (1, 1)
    assert isinstance(reader.funds[0], Fund)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "none of 0 rows"),
        (HEADER.encode(), "none of 0 rows"),
        (f"{HEADER}\n{row(last_price='x')}".encode(), "none of 1 rows"),
        (b"<html>\n<body>\n", "no column 'amc'"),
        (gzip.compress(PLAIN)[:-20], "cut off"),
        (b"\x1f\x8b" + b"no gzip at all", "no gzip"),
    ],
)
def test_what_is_no_list_of_funds_is_an_error(body: bytes, problem: str) -> None:
    with pytest.raises(ProtocolError, match=problem):
        read(body)


def test_a_step_is_never_long() -> None:
    """However large the piece is that came, and however well it was packed."""
    many = HEADER + "\n" + (FIRST + "\n") * 20_000
    for body in (many.encode(), gzip.compress(many.encode())):
        reader = FundFileReader()
        sizes = [0, *(len(reader.funds) for _ in reader.feed(body))]
        reader.finish()
        assert len(reader.funds) == 20_000
        assert max(after - before for before, after in itertools.pairwise(sizes)) < 400
