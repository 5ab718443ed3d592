"""The file that keeps a login: what is stored, what is taken up, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from neo_async.config import Credentials, Endpoints
from neo_async.errors import UsageError
from neo_async.model.session import Session
from neo_async.session import session_file
from neo_async.session.session_file import (
    LOCK_PATIENCE,
    SessionFile,
    default_path,
    forget_login,
    stored_logins,
)
from neo_async.system import file_lock

MIDNIGHT_IST = 1_795_199_400.0
"""2026-11-21 00:00 in India."""

CREDENTIALS = Credentials(
    consumer_key="key", mobile_number="+919999999999", ucc="ABC1", mpin="123456"
)
SESSION = Session(
    token="secret token",
    sid="secret sid",
    base_url="https://broker.example/neo",
    feed_url="wss://broker.example/feed",
    realtime_url="wss://broker.example/realtime",
    ucc="ABC1",
    data_center="E43",
)

posix = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


class Clock:
    def __init__(self) -> None:
        self.now = MIDNIGHT_IST + 10

    def __call__(self) -> float:
        return self.now


def file_in(
    directory: Path, *, clock: Clock | None = None, login: str = "https://b", **changes: Any
) -> SessionFile:
    credentials = msgspec.structs.replace(CREDENTIALS, **changes)
    path = directory / "session.json"
    return SessionFile(path, credentials, Endpoints(login=login), clock=clock or Clock())


def test_a_saved_session_is_taken_up(tmp_path: Path) -> None:
    file = file_in(tmp_path / "a" / "b")
    assert file.load() is None
    file.save(SESSION)
    assert file.session() == SESSION
    stored = file.load()
    assert stored is not None
    assert stored.made_at == MIDNIGHT_IST + 10
    assert list(file.path.parent.iterdir()) == [file.path]


@pytest.mark.parametrize(
    "change", [{"ucc": "B"}, {"consumer_key": "other"}, {"login": "https://elsewhere.example"}]
)
def test_a_login_of_another_account_or_server_is_not_taken_up(
    tmp_path: Path, change: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    file_in(tmp_path).save(SESSION)
    other = file_in(tmp_path, **change)
    assert other.load() is None
    assert "of another account, consumer key or server" in caplog.text
    with pytest.raises(UsageError, match="of another account"):
        other.session()
    other.forget()
    assert file_in(tmp_path).session() == SESSION


def test_a_login_of_another_machine_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file_in(tmp_path).save(SESSION)
    monkeypatch.setattr(session_file.platform, "node", lambda: "elsewhere")
    assert file_in(tmp_path).load() is None
    assert "made on another machine" in caplog.text


@pytest.mark.parametrize(("later", "is_good"), [(86_399, True), (86_400, False), (-1, False)])
def test_a_login_is_good_until_midnight_in_india(
    tmp_path: Path, later: float, is_good: bool
) -> None:
    clock = Clock()
    file = file_in(tmp_path, clock=clock)
    file.save(SESSION)
    clock.now = MIDNIGHT_IST + later
    with contextlib.nullcontext() if is_good else pytest.raises(UsageError, match="earlier day"):
        assert file.session() == SESSION


@posix
def test_only_the_owner_may_read_it_and_nothing_else_is_trusted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = file_in(tmp_path)
    old_mask = os.umask(0)
    try:
        file.save(SESSION)
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.path.chmod(0o644)
    assert file.load() is None
    assert "can be read by other users (mode 644)" in caplog.text
    with pytest.raises(UsageError, match="mode 644"):
        file.session()
    file.path.chmod(0o600)
    link = tmp_path / "link" / "session.json"
    link.parent.mkdir()
    link.symlink_to(file.path)
    assert file_in(link.parent).load() is None


@pytest.mark.parametrize("content", [b'{"session":', b"", b"words", b"[1, 2]", b"\xff\xfe"])
def test_a_file_that_is_no_session_file_is_not_used_and_not_lost(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = file_in(tmp_path)
    file.path.write_bytes(content)
    file.path.chmod(0o600)
    assert file.load() is None
    assert "is not a session file, or damaged" in caplog.text
    file.save(SESSION)
    assert file.session() == SESSION
    aside = tmp_path / "session.json.unreadable"
    assert (aside.read_bytes() if aside.exists() else b"") == content


def test_a_damaged_file_is_deleted_by_forgetting(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.save(SESSION)
    file.path.write_bytes(b'{"account":')
    file.forget()
    assert not file.path.exists()
    file.forget()


def test_a_failed_save_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_in(tmp_path)
    file.save(SESSION)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        file.save(None)
    assert file.session() == SESSION
    assert list(tmp_path.iterdir()) == [file.path]


def test_forgetting_keeps_only_which_code_was_used(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.save(SESSION, code_step=59_839_980)
    file.forget()
    stored = file.load()
    assert stored is not None
    assert (stored.session, stored.code_step) == (None, 59_839_980)
    assert b"secret" not in file.path.read_bytes()
    with pytest.raises(UsageError, match="holds no session"):
        file.session()


def test_no_secret_is_in_it_but_the_sessions_own(tmp_path: Path) -> None:
    file = file_in(tmp_path, consumer_key="hush-key", mpin="070809", totp_secret="JBSWY3DPEHPK3PXP")
    file.save(SESSION)
    content = file.path.read_text()
    for secret in ("hush-key", "070809", "JBSWY3DPEHPK3PXP", "9999999999"):
        assert secret not in content
    assert "secret" not in repr(file.load())


def test_commands_forget_the_logins_of_a_server_without_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here, there = Endpoints(login="https://here"), Endpoints(login="https://there")
    for endpoints in (here, there):
        path = default_path(CREDENTIALS, endpoints)
        assert CREDENTIALS.ucc not in path.name
        SessionFile(path, CREDENTIALS, endpoints, clock=Clock()).save(SESSION)
    assert len(stored_logins()) == 2
    assert [forget_login(path, "https://here", "OTHER") for path in stored_logins()] == ["", ""]
    assert sorted(forget_login(path, "https://here") for path in stored_logins()) == ["", "ABC1"]
    assert [forget_login(path, "https://here") for path in stored_logins()] == ["", ""]


# --- one process at a time ------------------------------------------------------------------------


async def test_one_login_at_a_time_has_the_lock(tmp_path: Path) -> None:
    inside: list[int] = []

    async def enter(number: int) -> None:
        async with file_in(tmp_path).locked():
            inside.append(number)
            assert len(inside) == 1
            await asyncio.sleep(1)
            inside.remove(number)

    await asyncio.gather(*(enter(number) for number in range(5)))
    assert asyncio.get_running_loop().time() >= 5


async def test_the_wait_for_a_holder_that_hangs_is_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = file_lock.hold(tmp_path / ".session.json.lock")
    async with file_in(tmp_path).locked():
        assert LOCK_PATIENCE <= asyncio.get_running_loop().time() < LOCK_PATIENCE + 1
    assert caplog.messages == [
        f"waiting for process {os.getpid()}, which is logging in",
        f"process {os.getpid()} has been logging in for 75 s: not waiting for it any longer",
    ]
    file_lock.release(held)


async def test_where_nothing_can_be_written_the_block_runs_without_the_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    async with file_in(tmp_path / "file" / "below").locked():
        pass
    assert "cannot be locked" in caplog.text


async def test_a_cancelled_wait_for_the_lock_takes_none(tmp_path: Path) -> None:
    held = file_lock.hold(tmp_path / ".session.json.lock")

    async def enter() -> None:
        async with file_in(tmp_path).locked():
            raise AssertionError("entered")

    waiting = asyncio.create_task(enter())
    await asyncio.sleep(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    file_lock.release(held)
    async with file_in(tmp_path).locked():
        logging.getLogger(__name__).debug("entered at once")
    assert asyncio.get_running_loop().time() < 2


@pytest.mark.parametrize("path", ["/", ".", "..", "a\0b"])
def test_a_path_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="must be the path of a file"):
        SessionFile(path, CREDENTIALS, Endpoints(), clock=Clock())
