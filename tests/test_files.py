"""Files that are whole or as they were, and files that are private."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from neo_async import files


def test_a_file_is_replaced_by_one_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    files.replace(path, [b"one", b"two"])
    files.replace(path, [b"three"])
    assert path.read_bytes() == b"three"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_fails_half_way_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.replace(path, [b"old"])

    def blocks() -> Iterator[bytes]:
        yield b"new"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        files.replace(path, blocks())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_file_that_others_can_read_holds_no_secret_any_more(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.read_private(path) is None
    files.replace(path, [b"secret"])
    assert files.read_private(path) == b"secret"
    path.chmod(0o640)
    assert files.read_private(path) is None


def test_files_of_servers_that_nobody_uses_go_after_two_weeks(tmp_path: Path) -> None:
    now = time.time()
    for name, days in (("a-1.bin", 13), ("a-2.bin", 15), ("b-1.bin", 15)):
        path = tmp_path / name
        path.write_bytes(b"")
        os.utime(path, (now - days * 86_400, now - days * 86_400))
    files.remove_old(tmp_path, "a-*.bin", "c-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.bin", "b-1.bin"]
