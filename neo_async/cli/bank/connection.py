"""The bank and the customer given by options and environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from neo_async.banking import BankingProfile, VirtualAccounts
from neo_async.cli.connection import mode_of
from neo_async.config import variable_reader
from neo_async.errors import UsageError

ProfileFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        envvar="KOTAK_BANK_PROFILE",
        metavar="TOML",
        help="Your bank's format; neo-async bank profile prints one to begin with.",
    ),
]


class Customer:
    """The customer given by the environment, and the bank's format."""

    def __init__(self, profile: Path | None) -> None:
        read = variable_reader()
        required = ("KOTAK_BANK_CLIENT_ID", "KOTAK_BANK_CLIENT_SECRET")
        missing = [name for name in required if not read(name)]
        if missing:
            raise UsageError(f"environment lacks {', '.join(missing)}")
        self.profile = _load(profile) if profile else BankingProfile()
        self.profile = self.profile.at_server_of_environment()
        customer = self.profile.customer
        self.client_name = read("KOTAK_BANK_CLIENT_NAME") or customer.client_name
        self.physical_account = read("KOTAK_BANK_PHYSICAL_ACCOUNT") or customer.physical_account

    def __str__(self) -> str:
        name = self.client_name or "no client name"
        mode = mode_of(is_paper=self.profile.is_paper)
        return f"{name}, account {self.physical_account} at {self.profile.server.base_url}: {mode}"

    def client(self, store: Path | None = None) -> VirtualAccounts:
        return VirtualAccounts(
            os.environ["KOTAK_BANK_CLIENT_ID"],
            os.environ["KOTAK_BANK_CLIENT_SECRET"],
            profile=self.profile,
            client_name=self.client_name,
            physical_account=self.physical_account,
            store=store,
        )


def _load(profile: Path) -> BankingProfile:
    try:
        return BankingProfile.load(profile)
    except OSError as error:
        raise UsageError(f"{profile}: {error.strerror}") from error
