from __future__ import annotations

from datetime import date

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.model.enums import Segment
from neo_async.model.instrument_table import InstrumentTable
from neo_async.wire.instrument_file import BadFile, Header, InstrumentFileReader, write_blocks
from neo_async.wire.scripmaster import BadRow, ScripMasterReader
from neo_async.wire.scripmaster_writer import write_scripmaster
from tests.wire.test_scripmaster import SHARE, TODAY, instruments

HEADER = Header(
    segment=Segment.NSE_CM,
    day=date(2026, 6, 1),
    address="https://files/nse_cm-v1.csv",
    bad_rows=[BadRow(3, "17", "no trading symbol")],
    bad_row_count=1,
)


def table_of(*rows: object) -> InstrumentTable:
    reader = ScripMasterReader(TODAY)
    reader.feed(write_scripmaster(rows))  # type: ignore[arg-type]
    reader.finish()
    return reader.table


def read(content: bytes) -> InstrumentFileReader:
    reader = InstrumentFileReader(content)
    for _ in reader.blocks():
        pass
    return reader


CONTENT = b"".join(write_blocks(HEADER, table_of(SHARE)))


@given(st.lists(instruments(), unique_by=lambda row: row.token, max_size=5))
def test_what_is_written_is_read_back(rows: list[object]) -> None:
    again = read(b"".join(write_blocks(HEADER, table_of(*rows))))
    assert list(again.table) == rows
    assert (again.header.bad_rows, again.header.day) == (HEADER.bad_rows, HEADER.day)
    assert (again.header.rows, again.header.segment) == (len(rows), Segment.NSE_CM)


def test_more_rows_than_one_block_holds_come_back_in_order() -> None:
    rows = [msgspec.structs.replace(SHARE, token=str(n), symbol=f"S{n}") for n in range(2500)]
    assert [row.token for row in read(b"".join(write_blocks(HEADER, table_of(*rows)))).table] == [
        str(n) for n in range(2500)
    ]


@settings(max_examples=200)
@given(st.integers(0, len(CONTENT) - 1))
def test_a_file_cut_anywhere_is_bad(length: int) -> None:
    with pytest.raises(BadFile):
        read(CONTENT[:length])


@settings(max_examples=200)
@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_a_file_with_any_byte_changed_is_bad(place: int, change: int) -> None:
    content = bytearray(CONTENT)
    content[place] ^= change
    with pytest.raises(BadFile):
        read(bytes(content))


def test_a_file_of_another_version_is_bad() -> None:
    with pytest.raises(BadFile, match="this version"):
        read(CONTENT.replace(b"instruments 1", b"instruments 0", 1))
