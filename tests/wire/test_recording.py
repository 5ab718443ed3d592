from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import UsageError
from neo_async.wire.feed import LITE
from neo_async.wire.recording import (
    FILE_HEADER,
    MAX_BLOCK,
    BlockBuilder,
    Frame,
    encode_block,
    read_recording,
)

START = 1_795_408_200_000_000_000

FRAMES = st.builds(
    Frame,
    st.integers(START - 10**12, START + 10**15),
    st.one_of(st.binary(max_size=200), st.text(max_size=50), st.none()),
)


def written(*blocks: list[Frame]) -> bytes:
    content = FILE_HEADER
    for frames in blocks:
        builder = BlockBuilder()
        for frame in frames:
            builder.add(frame.received_ns, frame.content)
        content += encode_block(*builder.take())
    return content


def read(content: bytes) -> tuple[list[Frame], str]:
    """The frames, and what is said of the damage."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.feed")
        path.write_bytes(content)
        reader = read_recording(path)
        return list(reader), reader.damage


FIRST = [Frame(START, "{}"), Frame(START + 5, b"\x09\x00" * 30), Frame(START + 9, None)]
SECOND = [Frame(START + 20, b""), Frame(START + 3, "नमस्ते")]
SMALL = written(FIRST, SECOND)


@given(st.lists(st.lists(FRAMES, min_size=1, max_size=6), max_size=4))
def test_what_is_written_is_read(blocks: list[list[Frame]]) -> None:
    frames = [frame for block in blocks for frame in block]

    assert read(written(*blocks)) == (frames, "")


def test_frames_survive_up_to_wherever_the_file_is_cut() -> None:
    first_end = len(written(FIRST))
    for size in range(len(SMALL)):
        frames, damage = read(SMALL[:size])

        assert frames == (FIRST if size >= first_end else [])
        assert bool(damage) is (size not in (len(FILE_HEADER), first_end))


def test_a_changed_byte_costs_its_block_and_those_behind_it_and_is_told() -> None:
    first_end = len(written(FIRST))
    for at in range(len(FILE_HEADER), len(SMALL)):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(SMALL)
            broken[at] ^= flip
            frames, damage = read(bytes(broken))

            assert frames == ([] if at < first_end else FIRST)
            assert (
                f"the block at byte {len(FILE_HEADER) if at < first_end else first_end}" in damage
            )


def test_a_file_of_another_kind_or_version_is_refused_by_name() -> None:
    for at in range(len(FILE_HEADER)):
        broken = bytearray(SMALL)
        broken[at] ^= 0x10
        with pytest.raises(UsageError, match=r"x\.feed"):
            read(bytes(broken))


@given(st.binary(max_size=300))
def test_no_bytes_behind_the_header_raise(content: bytes) -> None:
    read(FILE_HEADER + content)


@given(st.binary(max_size=200))
def test_no_records_in_a_sound_block_raise(records: bytes) -> None:
    frames, damage = read(FILE_HEADER + encode_block(START, records))

    assert damage or sum(12 + len(_bytes(frame.content)) for frame in frames) == len(records)


def _bytes(content: bytes | str | None) -> bytes:
    return content.encode() if isinstance(content, str) else content or b""


def test_a_block_that_claims_too_much_is_not_read() -> None:
    huge = (MAX_BLOCK + 1).to_bytes(4, "little")

    frames, damage = read(FILE_HEADER + huge + bytes(100))

    assert frames == []
    assert str(MAX_BLOCK) in damage


def test_a_block_that_unpacks_to_more_than_it_says_is_broken() -> None:
    stored = zlib.compress(bytes(10_000_000))
    covered = struct.pack("<IIq", len(stored), 24, START)
    crc = zlib.crc32(stored, zlib.crc32(covered))

    frames, damage = read(FILE_HEADER + covered + struct.pack("<I", crc) + stored)

    assert frames == []
    assert "24 bytes" in damage


def test_a_recording_is_read_from_its_start_each_time(tmp_path: Path) -> None:
    path = tmp_path / "x.feed"
    path.write_bytes(SMALL[:-1])
    reader = read_recording(path)

    assert list(reader) == list(reader) == FIRST
    path.write_bytes(SMALL)
    assert list(reader) == FIRST + SECOND
    assert not reader.damage


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.feed: No such file"):
        read_recording(tmp_path / "nowhere.feed")


def test_ticks_take_less_than_half_their_size() -> None:
    builder = BlockBuilder()
    size = 0
    for moment in range(40):
        tokens = range(moment % 7, 3000, 60)
        message = b"".join(
            LITE.pack(
                *(54, 7208, 1, 1, 0, token % 256, 0, token, START // 10**9),
                *(
                    100_000 + token * 7 % 997,
                    token % 90,
                    100_000,
                    token % 300,
                    token % 300,
                    1,
                    2,
                    1,
                ),
            )
            for token in tokens
        )
        builder.add(START + moment * 50_000_000, message)
        size += len(message)

    assert len(encode_block(*builder.take())) < size / 2
