"""The file that keeps a login between commands."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from neo_async.cli.stored_login import LoginFile, StoredLogin
from neo_async.config import Credentials, Endpoints
from neo_async.model.session import Session

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
LOGIN = StoredLogin(session=SESSION, made_at=MIDNIGHT_IST + 10)


def login_file(directory: Path, credentials: Credentials = CREDENTIALS) -> LoginFile:
    return LoginFile(directory, credentials, Endpoints())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    file = login_file(tmp_path / "cache")
    assert file.load() is None
    file.save(LOGIN)
    assert file.load() == LOGIN
    assert list(file.path.parent.iterdir()) == [file.path]


def test_accounts_and_servers_do_not_share_a_login(tmp_path: Path) -> None:
    other = Credentials(consumer_key="key", mobile_number="+919999999999", ucc="B", mpin="123456")
    elsewhere = LoginFile(tmp_path, CREDENTIALS, Endpoints(login="https://elsewhere.example"))
    paths = {login_file(tmp_path).path, login_file(tmp_path, other).path, elsewhere.path}
    assert len(paths) == 3


def test_the_name_of_the_file_tells_nothing(tmp_path: Path) -> None:
    assert "ABC1" not in login_file(tmp_path).path.name


def test_a_login_is_good_until_midnight_in_india() -> None:
    assert LOGIN.is_good(MIDNIGHT_IST + 86_399)
    assert not LOGIN.is_good(MIDNIGHT_IST + 86_400)
    assert not LOGIN.is_good(MIDNIGHT_IST - 1)
    assert not StoredLogin(session=None, made_at=LOGIN.made_at).is_good(LOGIN.made_at)


def test_a_totp_code_may_not_be_used_again_in_its_step() -> None:
    assert LOGIN.seconds_to_next_code(MIDNIGHT_IST + 12) == 18
    assert LOGIN.seconds_to_next_code(MIDNIGHT_IST + 30) == 0


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_only_the_owner_may_read_it_and_nothing_else_is_trusted(tmp_path: Path) -> None:
    file = login_file(tmp_path)
    old_mask = os.umask(0)
    try:
        file.save(LOGIN)
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.path.chmod(0o644)
    assert file.load() is None


def test_a_broken_file_counts_as_none(tmp_path: Path) -> None:
    file = login_file(tmp_path)
    file.save(LOGIN)
    file.path.write_bytes(b'{"session":')
    assert file.load() is None
    file.forget()
    assert not file.path.exists()


def test_a_failed_save_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = login_file(tmp_path)
    file.save(LOGIN)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        file.save(StoredLogin(session=None, made_at=0.0))
    assert file.load() == LOGIN
    assert list(tmp_path.iterdir()) == [file.path]


def test_forgetting_keeps_only_when_the_code_was_used(tmp_path: Path) -> None:
    file = login_file(tmp_path)
    file.save(LOGIN)
    file.forget()
    assert file.load() == StoredLogin(session=None, made_at=LOGIN.made_at)
    assert b"secret" not in file.path.read_bytes()


def test_its_repr_shows_no_secret() -> None:
    assert "secret" not in repr(LOGIN)
