"""Accounts and the servers they are at: credentials, and the addresses of the brokers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from neo_async.account.accounts_file import AccountSource, read_account, read_keyring
from neo_async.errors import UsageError
from neo_async.model.address import (
    SOCKET,
    WEB,
    address_problem,
    is_on_this_machine,
    shown_address,
)

PRODUCTION_LOGIN: Final = "https://mis.kotaksecurities.com"
KITE_API: Final = "https://api.kite.trade"
KITE_LOGIN: Final = "https://kite.zerodha.com"

_NEEDED: Final = ("NEO_CONSUMER_KEY", "NEO_MOBILE_NUMBER", "NEO_UCC", "NEO_MPIN")
_OTHER_WAYS: Final = (
    "an account of a file is named by --account or Credentials.from_file, and "
    "`neo-async exchange --env FILE` runs an exchange on paper, which needs no account"
)

_KEY = re.compile(r"[!-~]+")
_MOBILE = re.compile(r"\+91[0-9]{10}")
_MPIN = re.compile(r"[0-9]{6}")
_TOTP_SECRET: Final = re.compile(r"[A-Za-z2-7\s-]*=*\s*")
"""Base32 as pages show it: in groups, in either case, with or without padding."""


def _login_of_environment() -> str:
    return os.environ.get("NEO_LOGIN_URL") or PRODUCTION_LOGIN


def _kite_url_of_environment() -> str:
    return os.environ.get("KITE_URL", "")


def variable_reader(environ: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Return a function that reads a variable of `environ`, by default the process's environment.

    It returns an empty text for a variable that is not set.

    Its `repr` shows no variable, unlike that of a mapping and of its `get`, so that secrets stay
    out of tracebacks that show local variables.
    """
    variables = os.environ if environ is None else environ
    return lambda name: variables.get(name) or ""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Login credentials of one trading account. Never printed.

    A consumer key alone is enough for what needs no login: the scrip masters.
    """

    consumer_key: str
    """Access token of the API dashboard application."""
    mobile_number: str = ""
    """Mobile number with country code: +91 and ten digits."""
    ucc: str = ""
    """Client code of the trading account."""
    mpin: str = ""
    """MPIN of six digits, as text: leading zeros count."""
    totp_secret: str = ""
    """Base32 secret of the authenticator; without it, every login needs a code from the caller."""
    endpoints: Endpoints | None = None
    """The server that this account is at, where the file that it was read from names one. None
    leaves it to the environment."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            # The value may be a secret.
            if name != "endpoints" and not isinstance(getattr(self, name), str):
                raise UsageError(f"{name} must be text")
        if not self.consumer_key:
            raise UsageError("consumer_key is empty: copy the access token of the API dashboard")
        if not _KEY.fullmatch(self.consumer_key):
            raise UsageError("consumer_key holds blanks, line ends or letters beyond ASCII")
        if not self.can_log_in:
            return
        if not _MOBILE.fullmatch(self.mobile_number):
            raise UsageError("mobile_number must be +91 and ten digits")
        if not self.ucc:
            raise UsageError("ucc is empty: it is the client code of the trading account")
        if not _MPIN.fullmatch(self.mpin):
            raise UsageError("mpin must be six digits")
        if not _TOTP_SECRET.fullmatch(self.totp_secret):
            raise UsageError(
                "totp_secret is not base32 (letters A-Z and digits 2-7): copy it from the page "
                "that showed the QR code"
            )

    @property
    def can_log_in(self) -> bool:
        """Whether there is more than the consumer key."""
        return bool(self.mobile_number or self.ucc or self.mpin)

    def __repr__(self) -> str:
        return f"Credentials(ucc={self.ucc!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        # Structs show rich every field, in tracebacks with locals for instance.
        return [("ucc", self.ucc)]

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Credentials:
        """Read `NEO_CONSUMER_KEY NEO_MOBILE_NUMBER NEO_UCC NEO_MPIN` and `NEO_TOTP_SECRET`.

        Raises UsageError that lists every variable that is missing.
        """
        read = variable_reader(environ)
        del environ  # tracebacks may show local variables
        missing = [name for name in _NEEDED if not read(name)]
        if missing:
            raise UsageError(f"environment lacks {', '.join(missing)}; {_OTHER_WAYS}")
        return cls(
            consumer_key=read("NEO_CONSUMER_KEY"),
            mobile_number=read("NEO_MOBILE_NUMBER"),
            ucc=read("NEO_UCC"),
            mpin=read("NEO_MPIN"),
            totp_secret=read("NEO_TOTP_SECRET"),
        )

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str] | None = None, *, account: str | None = None
    ) -> Credentials:
        """Read one account of a TOML file, by default `$XDG_CONFIG_HOME/neo_async/accounts.toml`
        or `~/.config/neo_async/accounts.toml`.

        `account` is the name of its table; by default the one that `default = "NAME"` names, or
        the only one. The keys are the fields of Credentials, and `login_url`, `ca_file` and
        `insecure` for its server. `keyring = true` reads what the table lacks from the system's
        keyring; see `from_keyring`.

        Raises UsageError when the file or the account is missing, holds what it should not, or
        when other users can read the file.
        """
        source = read_account(path, account)
        endpoints = None
        if source.login_url or source.ca_file or source.insecure:
            endpoints = Endpoints(
                login=source.login_url or _login_of_environment(),
                ca_file=source.ca_file,
                insecure=source.insecure,
            )
        return cls(
            consumer_key=source.consumer_key,
            mobile_number=source.mobile_number,
            ucc=source.ucc,
            mpin=source.mpin,
            totp_secret=source.totp_secret,
            endpoints=endpoints,
        )

    @classmethod
    def from_keyring(cls, ucc: str) -> Credentials:
        """Read an account from the system's keyring: service `neo_async`, and a user name such as
        `ABC12/mpin` for each of `consumer_key`, `mobile_number`, `mpin` and `totp_secret`. The
        command `keyring set neo_async ABC12/mpin` stores one.

        Raises UsageError when one is missing, and without the package keyring, which
        `pip install "neo-async[keyring]"` installs.
        """
        source = read_keyring(AccountSource(ucc=ucc))
        return cls(
            consumer_key=source.consumer_key,
            mobile_number=source.mobile_number,
            ucc=ucc,
            mpin=source.mpin,
            totp_secret=source.totp_secret,
        )


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses of the broker. Only `login` is needed: the answer to the login gives the others,
    and an address set here takes precedence over it."""

    login: str = msgspec.field(default_factory=_login_of_environment)
    """Address that logins go to: by default `NEO_LOGIN_URL`, or production without it."""
    base: str = ""
    feed: str = ""
    realtime: str = ""
    ca_file: str = ""
    """PEM file of the authority to trust instead of the system's, for servers of one's own."""
    insecure: bool = False
    """Allow plain http and ws to other machines than this one: credentials, tokens and orders then
    cross the network in clear text. What a login over https answers must use TLS all the same."""

    def __post_init__(self) -> None:
        check_texts(self, "login", "base", "feed", "realtime", "ca_file")
        check_switch("insecure", self.insecure)
        if self.login:
            _check_address("login", self.login, insecure=self.insecure, is_base=True)
        if self.base:
            _check_address("base", self.base, insecure=self.insecure, is_base=True)
        for name in ("feed", "realtime"):
            url = getattr(self, name)
            if url:
                _check_address(name, url, schemes=SOCKET + WEB, insecure=self.insecure)

    @property
    def is_paper(self) -> bool:
        """Whether the server is on this machine (a loopback address), as the embedded exchange is:
        no real money then. Everything else counts as live."""
        return is_on_this_machine(self.login)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Endpoints:
        """Read `NEO_LOGIN_URL` and `NEO_CA_FILE`; without them, production and the system's
        authorities. `NEO_INSECURE=1` is `insecure`.

        Raises UsageError for an address that cannot be used."""
        read = variable_reader(environ)
        del environ  # tracebacks may show local variables
        login, insecure = read("NEO_LOGIN_URL"), _switch("NEO_INSECURE", read("NEO_INSECURE"))
        if login:
            _check_address("NEO_LOGIN_URL", login, insecure=insecure, is_base=True)
        return cls(login=login or PRODUCTION_LOGIN, ca_file=read("NEO_CA_FILE"), insecure=insecure)


class KiteEndpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses of Kite Connect."""

    api: str = msgspec.field(default_factory=lambda: _kite_url_of_environment() or KITE_API)
    """Address of the API: by default `KITE_URL`, or production without it."""
    login: str = msgspec.field(default_factory=lambda: _kite_url_of_environment() or KITE_LOGIN)
    """Address of the website where users log in: by default `KITE_URL`, or production."""
    ca_file: str = ""
    """PEM file of the authority to trust instead of the system's, for servers of one's own."""
    insecure: bool = False
    """Allow plain http to other machines than this one: keys, tokens and orders then cross the
    network in clear text."""

    def __post_init__(self) -> None:
        check_texts(self, "api", "login", "ca_file")
        check_switch("insecure", self.insecure)
        for name in ("api", "login"):
            _check_address(name, getattr(self, name), insecure=self.insecure, is_base=True)

    @property
    def is_paper(self) -> bool:
        """Whether the API is on this machine, as the embedded exchange is."""
        return is_on_this_machine(self.api)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> KiteEndpoints:
        """Read `KITE_URL` (another server, for both) and `KITE_CA_FILE`; without them, production
        and the system's authorities. `KITE_INSECURE=1` is `insecure`.

        Raises UsageError for an address that cannot be used."""
        read = variable_reader(environ)
        del environ  # tracebacks may show local variables
        url = read("KITE_URL")
        return cls(
            api=url or KITE_API,
            login=url or KITE_LOGIN,
            ca_file=read("KITE_CA_FILE"),
            insecure=_switch("KITE_INSECURE", read("KITE_INSECURE")),
        )


def endpoints_of(credentials: Credentials, given: Endpoints | None = None) -> Endpoints:
    """Return the server for an account: `given`, else that of its file, else the environment's.

    Somebody who sets NEO_LOGIN_URL to trade on paper must never trade with real money: raises
    UsageError when it leads to this machine, and `given` or the file to another one.
    """
    endpoints = given or credentials.endpoints
    if endpoints is None:
        return Endpoints.from_env()
    wanted = _login_of_environment()
    if is_on_this_machine(wanted) and not endpoints.is_paper:
        source = "endpoints=" if given is not None else "the account's login_url"
        raise UsageError(
            f"{source} leads to {shown_address(endpoints.login)}: live; NEO_LOGIN_URL leads to "
            f"{shown_address(wanted)}: paper. Change or unset one of them"
        )
    return endpoints


def _check_address(
    name: str,
    url: str,
    *,
    schemes: tuple[str, ...] = WEB,
    insecure: bool,
    is_base: bool = False,
) -> None:
    problem = address_problem(url, schemes=schemes, insecure=insecure, is_base=is_base)
    if problem:
        raise UsageError(f"{name}={shown_address(url)}: {problem}")


def _switch(name: str, text: str) -> bool:
    """Return whether an environment variable is on. Raises UsageError for any other text."""
    word = text.strip().lower()
    if word in ("1", "true", "yes"):
        return True
    if word in ("", "0", "false", "no"):
        return False
    raise UsageError(f"{name}={text!r}: must be 1 or 0")


def check_texts(settings: msgspec.Struct, *names: str) -> None:
    """Check that fields are text. Raises UsageError."""
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, str):
            raise UsageError(f"{name}={value!r}: must be text")


def check_switch(name: str, value: object) -> None:
    """Check that a value is a bool: "no" and "0" would count as true. Raises UsageError."""
    if type(value) is not bool:
        raise UsageError(f"{name}={value!r}: must be True or False")
