"""Where an account and its server come from: arguments, environment, files, keyring."""

from __future__ import annotations

import contextlib
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.account.accounts import PRODUCTION_LOGIN, endpoints_of
from neo_async.banking import BankingProfile, VirtualAccounts
from neo_async.base.env_file import read_env_file
from neo_async.client import NeoClient
from neo_async.config import Credentials, Endpoints, KiteEndpoints
from neo_async.errors import NeoError, UsageError
from neo_async.kite import KiteMutualFunds, KiteSession

PAPER = "http://127.0.0.1:8080"
FIELDS = {
    "consumer_key": "hush-key",
    "mobile_number": "+919876543210",
    "ucc": "ABC12",
    "mpin": "070809",
    "totp_secret": "JBSWY3DPEHPK3PXP",
}
ENVIRONMENT = {
    "NEO_CONSUMER_KEY": "hush-key",
    "NEO_MOBILE_NUMBER": "+919876543210",
    "NEO_UCC": "ABC12",
    "NEO_MPIN": "070809",
    "NEO_TOTP_SECRET": "JBSWY3DPEHPK3PXP",
}
CREDENTIALS = Credentials(**FIELDS)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith(("NEO_", "KITE_", "KOTAK_")):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def paper(environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    environment.setenv("NEO_LOGIN_URL", PAPER)
    return environment


def server_of(neo: NeoClient) -> str:
    return neo._session.endpoints.login


# --- paper or live --------------------------------------------------------------------------------


def test_without_arguments_account_and_server_are_those_of_the_environment(
    paper: pytest.MonkeyPatch,
) -> None:
    for name, value in ENVIRONMENT.items():
        paper.setenv(name, value)
    neo = NeoClient()
    assert neo._session.credentials == CREDENTIALS
    assert server_of(neo) == PAPER
    assert neo.is_paper


def test_credentials_alone_go_to_the_server_of_the_environment(paper: pytest.MonkeyPatch) -> None:
    assert server_of(NeoClient(CREDENTIALS)) == PAPER
    assert Endpoints(ca_file="own.pem").login == PAPER
    paper.delenv("NEO_LOGIN_URL")
    assert server_of(NeoClient(CREDENTIALS)) == PRODUCTION_LOGIN
    assert not NeoClient(CREDENTIALS).is_paper


def test_the_live_broker_is_refused_while_the_environment_leads_to_paper(
    paper: pytest.MonkeyPatch,
) -> None:
    live = Endpoints(login=PRODUCTION_LOGIN)
    with pytest.raises(UsageError, match=r"leads to 'https://mis.*: live; NEO_LOGIN_URL .*paper"):
        NeoClient(CREDENTIALS, endpoints=live)
    elsewhere = Endpoints(login="http://127.0.0.1:9")
    assert server_of(NeoClient(CREDENTIALS, endpoints=elsewhere)) == "http://127.0.0.1:9"
    paper.delenv("NEO_LOGIN_URL")
    assert server_of(NeoClient(CREDENTIALS, endpoints=live)) == PRODUCTION_LOGIN


async def test_kite_goes_to_the_server_of_the_environment(environment: pytest.MonkeyPatch) -> None:
    assert not KiteEndpoints().is_paper
    environment.setenv("KITE_URL", PAPER)
    assert KiteEndpoints() == KiteEndpoints(api=PAPER, login=PAPER)
    assert KiteEndpoints().is_paper
    assert PAPER in repr(KiteSession("key", "secret"))
    assert KiteMutualFunds("key", "token")._server == PAPER


async def test_the_bank_is_that_of_the_environment(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    live = BankingProfile()
    assert not live.is_paper
    (tmp_path / "bank.toml").write_text('[server]\nbase_url = "https://bank.example"\n')
    environment.setenv("KOTAK_BANK_URL", PAPER)
    for profile in (None, tmp_path / "bank.toml"):
        bank = VirtualAccounts("id", "secret", profile=profile)
        assert bank.profile.server.base_url == PAPER
        assert bank.profile.is_paper
    with pytest.raises(UsageError, match="KOTAK_BANK_URL to a bank on this machine"):
        VirtualAccounts("id", "secret", profile=live)


# --- files of accounts ----------------------------------------------------------------------------


def accounts(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "accounts.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def table(name: str, **more: str) -> str:
    fields = {**{field: f'"{value}"' for field, value in FIELDS.items()}, **more}
    return f"[{name}]\n" + "".join(f"{field} = {value}\n" for field, value in fields.items())


TWO = 'default = "main"\n' + table("main") + table("paper", login_url=f'"{PAPER}"', ucc='"TAM01"')


def test_an_account_of_a_file_comes_with_its_server(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = accounts(tmp_path, TWO)
    assert Credentials.from_file(path) == CREDENTIALS
    other = Credentials.from_file(path, account="paper")
    assert (other.ucc, other.endpoints) == ("TAM01", Endpoints(login=PAPER))
    assert server_of(NeoClient(other)) == PAPER
    assert server_of(NeoClient(Credentials.from_file(path))) == PRODUCTION_LOGIN
    environment.setenv("NEO_LOGIN_URL", PAPER)
    assert server_of(NeoClient(Credentials.from_file(path))) == PAPER
    live = accounts(tmp_path, table("main", login_url=f'"{PRODUCTION_LOGIN}"'))
    with pytest.raises(UsageError, match=r"the account's login_url leads to .*: live"):
        endpoints_of(Credentials.from_file(live))


def test_the_file_is_that_of_the_configuration_directory(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"there is no file of accounts .*accounts\.toml"):
        Credentials.from_file()
    (tmp_path / "neo_async").mkdir()
    accounts(tmp_path / "neo_async", table("only"))
    assert Credentials.from_file() == CREDENTIALS


@pytest.mark.parametrize(
    ("text", "account", "message"),
    [
        ("", None, "holds no account"),
        (table("a") + table("b"), None, "name one of a, b, or set default"),
        (table("a"), "b", "account 'b' is none of a"),
        ("[a\n", None, "is not TOML"),
        (table("a", mpin="170809"), None, "Expected `str`, got `int`.*texts are in quotes"),
        (table("a", pin='"1"'), None, "unknown field `pin`.*consumer_key, mobile_number"),
        ("a = 1\n", None, "Expected `object`, got `int`"),
        ("default = 7\n" + table("a"), None, "default must be the name of an account"),
        (table("a", mpin='"1"'), None, "mpin must be six digits"),
        (table("a", login_url='"ftp://x"'), None, "must start with https://"),
        ("\x00", None, "is not TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_without_secrets(
    tmp_path: Path, text: str, account: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Credentials.from_file(accounts(tmp_path, text), account=account)
    assert "hush" not in str(caught.value)
    assert "170809" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o666])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UsageError, match=f"mode {mode:o}.*chmod 600"):
        Credentials.from_file(accounts(tmp_path, table("a"), mode))


# --- the keyring ----------------------------------------------------------------------------------


class Keyring(types.ModuleType):
    """A stand-in for the package keyring: its two modules, and entries by user name."""

    def __init__(self, entries: dict[str, str]) -> None:
        super().__init__("keyring")
        self.entries = entries
        self.errors = types.ModuleType("keyring.errors")
        self.errors.KeyringError = type("KeyringError", (Exception,), {})  # type: ignore[attr-defined]

    def get_password(self, service: str, user: str) -> str | None:
        assert service == "neo_async"
        if user.startswith("LOCKED/"):
            raise self.errors.KeyringError("locked")
        return self.entries.get(user)


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    fake = Keyring({f"ABC12/{name}": value for name, value in FIELDS.items() if name != "ucc"})
    monkeypatch.setitem(sys.modules, "keyring", fake)
    monkeypatch.setitem(sys.modules, "keyring.errors", fake.errors)
    return fake


def test_an_account_comes_from_the_keyring(keyring: Keyring, tmp_path: Path) -> None:
    assert Credentials.from_keyring("ABC12") == CREDENTIALS
    path = accounts(tmp_path, '[main]\nucc = "ABC12"\nmpin = "123456"\nkeyring = true\n')
    assert Credentials.from_file(path).mpin == "123456"
    assert Credentials.from_file(path).consumer_key == "hush-key"
    del keyring.entries["ABC12/totp_secret"]
    assert Credentials.from_keyring("ABC12").totp_secret == ""
    del keyring.entries["ABC12/mobile_number"]
    with pytest.raises(UsageError, match="keyring set neo_async ABC12/mobile_number"):
        Credentials.from_keyring("ABC12")
    with pytest.raises(UsageError, match="cannot be read: locked"):
        Credentials.from_keyring("LOCKED")
    with pytest.raises(UsageError, match="ucc is empty"):
        Credentials.from_keyring("")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(UsageError, match=r'pip install "neo-async\[keyring\]"'):
        Credentials.from_keyring("ABC12")


# --- credentials that are not enough --------------------------------------------------------------


async def test_a_consumer_key_alone_is_not_enough_for_a_login(paper: pytest.MonkeyPatch) -> None:
    neo = NeoClient(Credentials(consumer_key="key"))
    with pytest.raises(UsageError, match="a login needs mobile_number, ucc and mpin"):
        await neo.login()


def test_missing_variables_are_named_with_the_way_without_an_account(
    environment: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match=r"lacks NEO_CONSUMER_KEY, .*exchange --env FILE"):
        NeoClient()


# --- .env files -----------------------------------------------------------------------------------


def test_the_usual_forms_of_an_env_file_are_read() -> None:
    text = (
        "\ufeff# paper\n\nexport NEO_UCC=TAM01\nNEO_MPIN = 070809 # six digits\r\n"
        "A='with $dollar and \"quotes\"'\nB=\"with 'quotes' # no comment\"  # one\n"
        "EMPTY=\nURL=http://127.0.0.1:8080/#x\nA=last\n"
    )
    assert read_env_file(text) == {
        "NEO_UCC": "TAM01",
        "NEO_MPIN": "070809",
        "A": "last",
        "B": "with 'quotes' # no comment",
        "EMPTY": "",
        "URL": "http://127.0.0.1:8080/#x",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hush", "line 2: must be NAME=value"),
        ("1A=hush", "line 2: must be NAME=value"),
        ("A=hush $HOME", "line 2: the value of A must be one word, or in single quotes"),
        ("A=$(hush)", "value of A must be"),
        ('A="hush$x"', "value of A must be"),
        ("A='hush", "value of A must be"),
        ("A=hush`x`", "value of A must be"),
    ],
)
def test_what_a_shell_would_have_to_read_is_refused_without_the_value(
    line: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_env_file(f"# one\n{line}\n")
    assert "hush" not in str(caught.value)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    found: dict[str, str] = {}
    with contextlib.suppress(ValueError):
        found = read_env_file(text)
    assert all(name.isidentifier() for name in found)


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'")))
def test_any_value_in_single_quotes_is_itself(value: str) -> None:
    assert read_env_file(f"A='{value}'") == {"A": value}


def test_errors_of_accounts_are_ours(tmp_path: Path) -> None:
    cases: list[Any] = [tmp_path, tmp_path / "missing"]
    for path in cases:
        with pytest.raises(NeoError):
            Credentials.from_file(path)
