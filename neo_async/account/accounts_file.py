"""Accounts of a TOML file, and of the system's keyring.

default = "main"

[main]
consumer_key = "…"
mobile_number = "+91…"
ucc = "ABC12"
mpin = "070809"
totp_secret = "…"

[paper]
login_url = "http://127.0.0.1:8080"
…

[family]
ucc = "DEF34"
keyring = true
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from neo_async.errors import UsageError
from neo_async.system import files

SERVICE: Final = "neo_async"
"""Name of the service under which secrets are in the keyring."""

_SECRETS: Final = ("consumer_key", "mobile_number", "mpin", "totp_secret")
"""What the keyring may hold of an account."""


class AccountSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table of one account. Never printed."""

    consumer_key: str = ""
    mobile_number: str = ""
    ucc: str = ""
    mpin: str = ""
    totp_secret: str = ""
    login_url: str = ""
    """Address that logins go to; empty leaves it to the environment."""
    ca_file: str = ""
    insecure: bool = False
    keyring: bool = False
    """Whether what is missing here is in the system's keyring."""

    def __repr__(self) -> str:
        return f"AccountSource(ucc={self.ucc!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("ucc", self.ucc)]


def accounts_path() -> Path:
    """Return `$XDG_CONFIG_HOME/neo_async/accounts.toml`, by default in `~/.config`."""
    root = os.environ.get("XDG_CONFIG_HOME")
    return (Path(root) if root else Path.home() / ".config") / "neo_async" / "accounts.toml"


def read_account(path: str | os.PathLike[str] | None, name: str | None) -> AccountSource:
    """Return an account of a file; without a name the default one, or the only one.

    Raises UsageError.
    """
    file = accounts_path() if path is None else Path(path).expanduser()
    default, accounts = _read(file)
    if not accounts:
        raise UsageError(f"{file}: holds no account, such as a table [main] with ucc, mpin, …")
    wanted = name or default or (next(iter(accounts)) if len(accounts) == 1 else "")
    known = ", ".join(accounts)
    if not wanted:
        raise UsageError(f'{file}: name one of {known}, or set default = "NAME" above the tables')
    if wanted not in accounts:
        raise UsageError(f"{file}: account {wanted!r} is none of {known}")
    source = accounts[wanted]
    return read_keyring(source) if source.keyring else source


def read_keyring(source: AccountSource) -> AccountSource:
    """Return an account with what it lacks from the system's keyring. Raises UsageError."""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise UsageError(
            'the system\'s keyring is read by a package: pip install "neo-async[keyring]"'
        ) from None
    if not source.ucc:
        raise UsageError("ucc is empty: the keyring is asked for ABC12/mpin, ABC12 being the ucc")
    try:
        found = {
            field: value
            for field in _SECRETS
            if not getattr(source, field)
            and (value := keyring.get_password(SERVICE, f"{source.ucc}/{field}"))
        }
    except KeyringError as error:
        raise UsageError(f"the system's keyring cannot be read: {error}") from None
    whole = msgspec.structs.replace(source, **found)
    found.clear()  # tracebacks may show local variables
    for field in _SECRETS:
        if field != "totp_secret" and not getattr(whole, field):
            raise UsageError(
                f"the keyring lacks {field} of {source.ucc}: "
                f"keyring set {SERVICE} {source.ucc}/{field}"
            )
    return whole


def _read(file: Path) -> tuple[str, dict[str, AccountSource]]:
    """Return the name of the default account, and all accounts by name."""
    try:
        text = files.read_if_private(file).decode()
    except FileNotFoundError:
        raise UsageError(f"there is no file of accounts {file}") from None
    except files.NotPrivate as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8 text") from None
    import tomllib

    content: dict[str, object] = {}
    problem = ""
    try:
        content = tomllib.loads(text)
        default = content.pop("default", "")
        if not isinstance(default, str):
            problem = "default must be the name of an account, in quotes"
        else:
            return default, msgspec.convert(content, dict[str, AccountSource])
    except tomllib.TOMLDecodeError as error:
        problem = f"is not TOML: {error}"
    except msgspec.ValidationError as error:
        problem = f"{error}; texts are in quotes, and the keys of an account are {_keys()}"
    finally:
        # Tracebacks may show local variables.
        content, text = {}, ""
    raise UsageError(f"{file}: {problem}")


def _keys() -> str:
    return ", ".join(AccountSource.__struct_fields__)
