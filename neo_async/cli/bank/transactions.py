"""The command that takes credits: it shows them first, and then acknowledges them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

import neo_async
from neo_async.banking import Credit
from neo_async.cli import output
from neo_async.cli.bank.connection import Customer, ProfileFile
from neo_async.cli.csv_output import CsvWriter
from neo_async.cli.output import AsCsv, Cell
from neo_async.cli.parameters import new_file, seconds
from neo_async.cli.prompts import Yes, confirm
from neo_async.cli.table_layout import Column
from neo_async.errors import UnreadableCredit, UsageError
from neo_async.model.money import grouped

_Show: TypeAlias = Callable[[Sequence[Credit]], None]

_FIELDS = Credit.__struct_fields__


def transactions(
    peek: Annotated[
        bool,
        typer.Option("--peek", help="Show the next batch, and acknowledge nothing."),
    ] = False,
    follow: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", parser=seconds(1), help="Look again every so often, for ever."
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=new_file, help="Store what was shown, so that it is shown once."
        ),
    ] = None,
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable",
            help="Print entries that are not credits (reversals, odd amounts) to stderr, and "
            "acknowledge them with the rest.",
        ),
    ] = False,
    profile: ProfileFile = None,
    yes: Yes = False,
    as_csv: AsCsv = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print an object a line instead of tables.")
    ] = False,
) -> None:
    """Take the outstanding credits, batch by batch, and acknowledge each batch once it is shown.

    The bank does not send acknowledged credits again: --peek looks without acknowledging.

    neo-async bank transactions --csv --yes --store credits.db >> credits.csv
    """
    if peek and (follow or store):
        raise UsageError("--peek excludes --follow and --store")
    customer = Customer(profile)
    if not peek:
        confirm("take all outstanding credits, and acknowledge them", customer, yes=yes)
    show = _show_csv() if as_csv else _show_json if as_json else _show_table

    async def run() -> int:
        async with customer.client(store) as bank:
            stream = bank.transactions(poll=follow)
            while True:
                try:
                    async for batch in stream.batches():
                        # The whole batch is shown before the next iteration acknowledges it.
                        show(batch.credits)
                        if peek:
                            break
                    return stream.taken
                except UnreadableCredit as error:
                    if not (skip_unreadable or peek):
                        output.echo("--skip-unreadable skips such entries", err=True)
                        raise
                    output.echo(f"left out, {error.problem}: {error.entry}", err=True)
                    stream.skip(error)

    taken = neo_async.run(run())
    if not taken:
        output.echo("no outstanding credits", err=True)
    elif not peek and (as_csv or as_json):
        output.echo(f"{taken:,} credits", err=True)


def _show_csv() -> _Show:
    writer = CsvWriter(_FIELDS)

    def show(credits_: Sequence[Credit]) -> None:
        writer.write([getattr(each, name) for name in _FIELDS] for each in credits_)

    return show


def _show_json(credits_: Sequence[Credit]) -> None:
    for each in credits_:
        output.print_json(each)
    sys.stdout.flush()


def _show_table(credits_: Sequence[Credit]) -> None:
    output.print_table(
        (
            Column("Time", is_whole=True, rank=2),
            Column("Account", is_whole=True),
            Column("Rupees", is_number=True),
            Column("Mode", rank=3),
            Column("From", rank=1),
            Column("From account", is_whole=True, rank=5),
            Column("Reference", is_whole=True),
            Column("Narration", is_optional=True, rank=4),
            Column("Again", is_optional=True),
        ),
        (
            (
                f"{each.credited_at:%Y-%m-%d %H:%M:%S}" if each.credited_at else "",
                each.account,
                grouped(each.amount),
                each.mode,
                each.remitter_name,
                each.remitter_account,
                each.reference,
                each.narration or output.NOTHING,
                Cell("maybe", "yellow") if each.may_be_repeated else output.NOTHING,
            )
            for each in credits_
        ),
    )
    sys.stdout.flush()
