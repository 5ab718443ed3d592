"""Reading the list of funds, however it comes."""

from __future__ import annotations

import contextlib
import gzip
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neo_async import ProtocolError
from neo_async.kite import Fund
from neo_async.kite.fund_file import FundFileReader
from tests.kite.fake_kite import PAYLOADS

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
        row(minimum_purchase_amount="much"),
        row(minimum_purchase_amount=""),
        row(purchase_amount_multiplier="nan"),
        row(minimum_redemption_quantity="inf"),
        row(minimum_purchase_amount="9" * 5000),
        row(purchase_allowed="maybe"),
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
        (f"{HEADER}\n{row(minimum_purchase_amount='x')}\n".encode(), "none of 1 rows"),
        (b"<html>\n<body>\n", "no column 'amc'"),
        (gzip.compress(PLAIN)[:-20], "cut off"),
        (b"\x1f\x8b" + b"no gzip at all", "no gzip"),
        (gzip.compress(PLAIN) + gzip.compress(PLAIN)[:-20], "cut off"),
        (gzip.compress(PLAIN) + b"\x1f", "cut off"),
        (gzip.compress(PLAIN) + b"and more", "no gzip"),
        (f"{HEADER}\n{FIRST}\n{FIRST[:40]}".encode(), "cut off in its last row"),
        (f"{HEADER}\n{FIRST}\n{FIRST[:-3]}".encode(), "cut off in its last row"),
        (f'{HEADER}\n{FIRST}\nINF846K01DP8,AXIS,"Fund'.encode(), "cut off in its last row"),
        (f"{HEADER}\n{'x' * 200_000}\n".encode(), "more than 65,536 bytes"),
        (b"x" * 200_000, "more than 65,536 bytes"),
        (
            gzip.compress(f"{HEADER}\n".encode() + (b"x" * 60_000 + b"\n") * 600),
            "more than 33,554,432",
        ),
    ],
)
def test_what_is_no_list_of_funds_is_an_error(body: bytes, problem: str) -> None:
    with pytest.raises(ProtocolError, match=problem):
        read(body)


@pytest.mark.parametrize(
    "dressed",
    [
        PLAIN.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + PLAIN,
        b"\xef\xbb\xbf" + b",".join(b'"%b"' % name.encode() for name in HEADER.split(","))
        + PLAIN[len(HEADER) :],
        PLAIN.replace(b",", b" , ").replace(b"\n", b" \n"),
        PLAIN.replace(b"\n", b",\n"),
        HEADER.upper().encode() + PLAIN[len(HEADER) :],
        PLAIN.replace(b"\n", b"\n\n"),
        b"\n" + PLAIN + b" , ,\n\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_zipped", [True, False])
def test_every_ordinary_dressing_is_read(dressed: bytes, is_zipped: bool) -> None:
    body = gzip.compress(dressed) if is_zipped else dressed
    assert read(body).funds == read(PLAIN).funds
    assert read(*(body[at : at + 1] for at in range(len(body)))).funds == read(PLAIN).funds


@given(st.lists(st.integers(0, len(QUOTED)), max_size=5), st.integers(1, 5000), st.booleans())
def test_a_file_of_several_gzip_members_is_read_whole(
    cuts: list[int], size: int, is_padded: bool
) -> None:
    places = [0, *sorted(cuts), len(QUOTED)]
    body = b"".join(
        gzip.compress(QUOTED[start:end], mtime=0) for start, end in itertools.pairwise(places)
    ) + (b"\0" * 512 if is_padded else b"")
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert read(*pieces).funds == read(QUOTED).funds


@pytest.mark.parametrize("nav", ["", "0", "0.0", "much", "nan"])
@pytest.mark.parametrize("day", ["", "11/11/2016", "0000-00-00"])
def test_a_nav_that_nobody_knows_costs_no_fund(nav: str, day: str) -> None:
    odd = row(last_price=nav, last_price_date=day)
    (fund, other) = read(f"{HEADER}\n{odd}\n{FIRST}\n".encode()).funds
    assert (fund.last_price, fund.last_price_date) == (None, None)
    assert other.last_price


def test_grouped_numbers_are_read() -> None:
    names = HEADER.split(",")
    values = FIRST.split(",")
    values[names.index("minimum_purchase_amount")] = '"1,00,000.00"'
    (fund,) = read(f"{HEADER}\n{','.join(values)}\n".encode()).funds
    assert fund.minimum_purchase_amount == 100_000.0


def test_the_columns_of_the_nav_may_be_missing() -> None:
    at = HEADER.split(",").index("last_price")
    without = [
        "".join(f"{line}," for line in text.split(",")[:at])[:-1] for text in (HEADER, FIRST)
    ]
    (fund,) = read("\n".join([*without, ""]).encode()).funds
    assert (fund.last_price, fund.last_price_date) == (None, None)


def test_a_quote_that_means_inches_costs_nothing() -> None:
    odd = row(name='Fund 12" and more')
    many = f"{HEADER}\n{odd}\n" + f"{FIRST}\n" * 5000
    assert len(read(many.encode()).funds) == 5001


def test_rows_that_an_open_quote_takes_in_are_counted() -> None:
    odd = row(name='"Fund')
    reader = read((f"{HEADER}\n{FIRST}\n{odd}\n" + f"{FIRST}\n" * 5000).encode())
    assert len(reader.funds) + reader.bad_row_count >= 5002
    assert reader.bad_row_count > 1


@given(st.binary())
def test_no_bytes_raise_anything_but_an_error_of_our_own(noise: bytes) -> None:
    for body in (noise, PLAIN + noise, gzip.compress(PLAIN) + noise, b"\x1f\x8b\x08" + noise):
        with contextlib.suppress(ProtocolError):
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
