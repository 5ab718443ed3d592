"""Commands for virtual accounts: one given by arguments, or many by a CSV file."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import typer

import neo_async
from neo_async.banking import (
    AccountChange,
    AccountResult,
    AccountStatus,
    Outcome,
    VirtualAccount,
    VirtualAccounts,
)
from neo_async.banking.accounts import Progress
from neo_async.banking.rules import AccountRules, Item
from neo_async.cli import output
from neo_async.cli.bank.connection import Customer, ProfileFile
from neo_async.cli.bank.tables import CsvFile, Row, Table, read_table
from neo_async.cli.csv_output import CsvWriter
from neo_async.cli.output import AsJson, Cell
from neo_async.cli.parameters import choice_option, day
from neo_async.cli.prompts import Yes, confirm
from neo_async.cli.table_layout import Column
from neo_async.errors import UsageError

_Number: TypeAlias = Annotated[
    str, typer.Argument(metavar="NUMBER", help="Number of the virtual account.")
]
_From: TypeAlias = Annotated[
    date | None,
    typer.Option("--from", parser=day, metavar="YYYY-MM-DD", help="First day of credits."),
]
_To: TypeAlias = Annotated[
    date | None,
    typer.Option("--to", parser=day, metavar="YYYY-MM-DD", help="Last day of credits."),
]
_Min: TypeAlias = Annotated[
    str | None, typer.Option("--min", metavar="RUPEES", help="Smallest credit.")
]
_Max: TypeAlias = Annotated[
    str | None, typer.Option("--max", metavar="RUPEES", help="Largest credit.")
]
_Mobile: TypeAlias = Annotated[
    str | None, typer.Option(metavar="+91…", help="Mobile number of its owner.")
]
_Email: TypeAlias = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Email address of its owner.")
]
_Description: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Description of your own.")
]

_STATUSES = (AccountStatus.ACTIVE, AccountStatus.BLOCKED)
"""States that a change may set."""

_COLUMNS = VirtualAccount.__struct_fields__
_CLEARED = "-"
"""Cell of a file of changes that clears a field. An empty cell leaves it."""

_STYLES = {
    Outcome.DONE: "green",
    Outcome.REFUSED: "red",
    Outcome.UNKNOWN: "yellow",
    Outcome.NOT_SENT: "dim",
}


class _Work(NamedTuple):
    """A change of many accounts: how to check it, and how to send it."""

    verb: str
    check: Callable[[AccountRules], list[Item]]
    """Return the accounts to confirm. Raises InvalidField before the user is prompted."""
    send: Callable[[VirtualAccounts, Progress], Awaitable[list[AccountResult]]]
    table: Table | None
    """File of the accounts; None when they come from the arguments."""


def create(
    number: _Number = "",
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose payments it collects.")] = "",
    valid_from: _From = None,
    valid_to: _To = None,
    min_amount: _Min = None,
    max_amount: _Max = None,
    mobile: _Mobile = None,
    email: _Email = None,
    description: _Description = None,
    csv: CsvFile = None,
    profile: ProfileFile = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Create virtual accounts. One that exists already with the same data is done.

    neo-async bank create ACME00000001 "Asha Rao" --max 500000

    neo-async bank create --csv accounts.csv > results.csv

    Columns: number, name, valid_from, valid_to, min_amount, max_amount, mobile, email, description.
    """
    table = None
    if csv is not None:
        _only_csv(number)
        table = read_table(csv, _COLUMNS, ("number", "name"))
        accounts = [_new_account(table, row) for row in table.rows]
    elif not number or not name:
        raise UsageError("give NUMBER and NAME, or --csv FILE")
    else:
        accounts = [
            VirtualAccount(
                number,
                name,
                valid_from,
                valid_to,
                min_amount,
                max_amount,
                mobile,
                email,
                description,
            )
        ]
    work = _Work(
        "create",
        check=lambda rules: rules.new_accounts(accounts),
        send=lambda bank, progress: bank.create(accounts, progress=progress),
        table=table,
    )
    _run(work, profile, yes=yes, as_json=as_json)


def modify(
    number: _Number = "",
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Whose payments it collects.")
    ] = None,
    valid_from: _From = None,
    valid_to: _To = None,
    min_amount: _Min = None,
    max_amount: _Max = None,
    mobile: _Mobile = None,
    email: _Email = None,
    description: _Description = None,
    status: Annotated[
        AccountStatus | None,
        choice_option(_STATUSES, "--status", metavar="STATUS", help="BLOCKED refuses credits:"),
    ] = None,
    csv: CsvFile = None,
    profile: ProfileFile = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Change the given fields of virtual accounts, and leave the others.

    neo-async bank modify ACME00000001 --status BLOCKED

    neo-async bank modify --csv changes.csv > results.csv

    Columns: number and any of name, valid_from, valid_to, min_amount, max_amount, mobile, email,
    description, status. An empty cell leaves a field, a - clears it.
    """
    table = None
    if csv is not None:
        _only_csv(number)
        table = read_table(csv, (*_COLUMNS, "status"), ("number",))
        changes = [_change(table, row) for row in table.rows]
    elif not number:
        raise UsageError("give NUMBER, or --csv FILE")
    else:
        given: dict[str, Any] = {
            "name": name,
            "valid_from": valid_from,
            "valid_to": valid_to,
            "min_amount": min_amount,
            "max_amount": max_amount,
            "mobile": mobile,
            "email": email,
            "description": description,
            "status": status,
        }
        given = {field: value for field, value in given.items() if value is not None}
        if not given:
            raise UsageError("nothing to change: give --name, --max, --status or another option")
        changes = [AccountChange(number, **given)]
    work = _Work(
        "modify",
        check=lambda rules: rules.changes(changes),
        send=lambda bank, progress: bank.modify(changes, progress=progress),
        table=table,
    )
    _run(work, profile, yes=yes, as_json=as_json)


def delete(
    numbers: Annotated[
        list[str] | None,
        typer.Argument(metavar="NUMBERS", help="Numbers of the virtual accounts."),
    ] = None,
    csv: CsvFile = None,
    profile: ProfileFile = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete virtual accounts. Their numbers stay reserved for ever.

    neo-async bank delete ACME00000001 ACME00000002

    neo-async bank delete --csv numbers.csv > results.csv
    """
    table = None
    if csv is not None:
        _only_csv(*(numbers or ()))
        table = read_table(csv, _COLUMNS, ("number",))
        numbers = [row["number"] for row in table.rows]
    if not numbers:
        raise UsageError("give NUMBERS, or --csv FILE")
    given = list(numbers)
    work = _Work(
        "delete",
        check=lambda rules: rules.numbers(given),
        send=lambda bank, progress: bank.delete(given, progress=progress),
        table=table,
    )
    _run(work, profile, yes=yes, as_json=as_json)


# --- rows of a file -------------------------------------------------------------------------------


def _only_csv(*arguments: str) -> None:
    if any(arguments):
        raise UsageError("--csv names the accounts: give no NUMBER beside it")


def _new_account(table: Table, row: Row) -> VirtualAccount:
    fields = {name: _cell(table, row, name) for name in _COLUMNS if row[name]}
    return VirtualAccount(**{"number": "", "name": "", **fields})


def _change(table: Table, row: Row) -> AccountChange:
    fields: dict[str, Any] = {
        name: None if row[name] == _CLEARED else _cell(table, row, name)
        for name in (*_COLUMNS, "status")
        if row[name]
    }
    return AccountChange(**{"number": "", **fields})


def _cell(table: Table, row: Row, name: str) -> Any:
    if name in ("valid_from", "valid_to"):
        return table.read(row, name, date.fromisoformat, "YYYY-MM-DD")
    if name == "status":
        return table.read(row, name, AccountStatus, "ACTIVE or BLOCKED")
    return row[name]


# --- sending, and showing the results -------------------------------------------------------------


def _run(work: _Work, profile: Path | None, *, yes: bool, as_json: bool) -> None:
    customer = Customer(profile)
    with work.table.lines_named() if work.table else contextlib.nullcontext():
        items = work.check(AccountRules(customer.profile))

    async def run() -> list[AccountResult]:
        size = customer.profile.format.max_items
        async with customer.client() as bank:
            with output.progress_bar(f"{work.verb} accounts", visible_above=size) as progress:
                return await work.send(bank, progress)

    many = f"{len(items):,} virtual accounts"
    what = f"virtual account {items[0]['number']}" if len(items) == 1 else many
    confirm(f"{work.verb} {what}", customer, yes=yes)
    results = neo_async.run(run())
    if as_json:
        output.print_json(results)
    elif work.table is not None:
        writer = CsvWriter(("number", "outcome", "code", "reason"))
        writer.write((row.number, row.outcome, row.code, row.reason) for row in results)
    else:
        _print(results)
    failures = [result for result in results if not result.is_done]
    if failures:
        if len(results) > 1:
            output.echo(f"{len(failures):,} of {len(results):,} are not done", err=True)
        raise typer.Exit(1)


def _print(results: list[AccountResult]) -> None:
    output.print_table(
        (
            Column("Account", is_whole=True),
            Column("Outcome"),
            Column("Code", is_optional=True),
            Column("Message", is_optional=True),
        ),
        (
            (
                row.number,
                Cell(row.outcome, _STYLES[row.outcome]),
                row.code or output.NOTHING,
                row.reason or output.NOTHING,
            )
            for row in results
        ),
    )
