"""Files that are whole or as they were, and files that are private."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from neo_async.system import files


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


posix = pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")


def others(kind: str, path: Path) -> None:
    """Something that is not a regular file of the caller's own, and holds "theirs" if anything."""
    if kind == "link":
        target = path.with_name("target")
        target.write_text("theirs")
        target.chmod(0o600)
        path.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text("theirs")
        path.chmod(0o606)


KINDS = ("link", "pipe", "socket", "folder", "open to all")


@posix
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_a_file_of_the_callers_own_is_read(tmp_path: Path, kind: str) -> None:
    others(kind, tmp_path / "file")
    assert files.read_private(tmp_path / "file") is None


@posix
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_a_file_of_the_callers_own_is_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    others(kind, path)
    for flags in (os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        with pytest.raises(OSError, match=r"file (is|can)|directory"):
            os.close(files.open_private(path, flags))
    with pytest.raises(files.NotPrivate, match=r"file (is|can)"):
        files.make_private(path)
    if kind in ("link", "open to all"):
        assert path.read_text() == "theirs"


@posix
def test_a_file_of_somebody_else_is_named_with_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.replace(path, [b"theirs"])
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    assert files.read_private(path) is None
    for call in (lambda: files.open_private(path, os.O_RDWR), lambda: files.make_private(path)):
        with pytest.raises(files.NotPrivate, match="file belongs to user"):
            call()


@posix
def test_a_private_file_is_private_from_its_creation_and_made_so_when_it_was_not(
    tmp_path: Path,
) -> None:
    before = os.umask(0)
    try:
        os.close(files.open_private(tmp_path / "opened", os.O_RDWR | os.O_CREAT))
        files.make_private(tmp_path / "made")
        files.make_private(tmp_path / "none", create=False)
        for name in ("old", "older"):
            (tmp_path / name).write_text("kept")
            (tmp_path / name).chmod(0o644)
        os.close(files.open_private(tmp_path / "old", os.O_RDWR))
        files.make_private(tmp_path / "older")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("opened", "made", "old", "older"), 0o600)
    assert (tmp_path / "old").read_text() == (tmp_path / "older").read_text() == "kept"


def test_files_of_servers_that_nobody_uses_go_after_two_weeks(tmp_path: Path) -> None:
    now = time.time()
    for name, days in (("a-1.bin", 13), ("a-2.bin", 15), ("b-1.bin", 15)):
        path = tmp_path / name
        path.write_bytes(b"")
        os.utime(path, (now - days * 86_400, now - days * 86_400))
    files.remove_old(tmp_path, "a-*.bin", "c-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.bin", "b-1.bin"]


def test_a_file_named_for_reading_may_be_a_link_but_not_a_fifo(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    with files.open_regular(tmp_path / "link") as file:
        assert file.read() == b"content"
    for name in ("fifo", "."):
        with pytest.raises(OSError, match="not a regular file"):
            files.open_regular(tmp_path / name)
