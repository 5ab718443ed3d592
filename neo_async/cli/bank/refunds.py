"""Refunds from the shell. A row of a file has the same key whenever it is sent, so that a file can
be sent again after whatever went wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated
from uuid import UUID, uuid5

import msgspec
import typer

import neo_async
from neo_async.banking import Refund, RefundStatus, VirtualAccounts
from neo_async.banking.rules import AccountRules, money
from neo_async.cli import output
from neo_async.cli.asking import Yes, confirm
from neo_async.cli.bank.connection import Customer, ProfileFile, progress_bar
from neo_async.cli.bank.tables import CsvFile, CsvWriter, Row, Table, read_table
from neo_async.cli.output import AsJson, Cell, Column
from neo_async.errors import BankRejected, InvalidField, NeoError, RefundUnknown, UsageError
from neo_async.model.money import grouped, total

_COLUMNS = ("reference", "amount", "reason", "key")
_NAMESPACE = UUID("6f1d2a53-7f5e-5d0b-9a77-0b6c1e0f4d11")
"""Of the keys that rows get."""

_STYLES = {
    RefundStatus.SUCCESS: "green",
    RefundStatus.FAILED: "red",
    RefundStatus.REJECTED: "red",
    RefundStatus.UNKNOWN: "yellow",
}


class _Wish(msgspec.Struct):
    """One refund that is asked for."""

    reference: str
    amount: Decimal | None
    reason: str
    key: str


class _Told(msgspec.Struct):
    """What became of one."""

    reference: str
    key: str
    outcome: str
    refund_reference: str = ""
    amount: Decimal | None = None
    message: str = ""


def refund(
    reference: Annotated[str, typer.Argument(help="Transaction reference of the credit.")] = "",
    amount: Annotated[
        str | None, typer.Option(metavar="RUPEES", help="What is left of it, unless given.")
    ] = None,
    reason: Annotated[str, typer.Option()] = "",
    key: Annotated[
        str, typer.Option(metavar="UUID", help="Of an earlier try, which is looked up first.")
    ] = "",
    wait: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="Longest to wait for its end; 0 does not."),
    ] = 0.0,
    csv: CsvFile = None,
    profile: ProfileFile = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send the money of a credit back, or a part of it.

    neo-async bank refund AXISN52026111900012345 --amount 500 --wait 60

    neo-async bank refund --csv refunds.csv > results.csv

    Columns: reference, amount, reason, key. Without a key of its own a row has one that follows
    from what is in it: sending a file again sends no money twice.
    """
    customer = Customer(profile)
    rules = AccountRules(customer.profile)
    rules.client_name(customer.client_name)
    if csv is not None:
        if reference or amount or reason or key:
            raise UsageError("--csv names the refunds: give nothing else about them")
        if wait:
            raise UsageError("--wait is for a single refund")
        _refund_many(customer, _wishes(csv, customer.client_name, rules), yes=yes, as_json=as_json)
        return
    wish = _wish(rules, reference, amount or "", reason, key)
    confirm(_describe(wish), customer, yes=yes)
    told = neo_async.run(_refund_one(customer, wish, wait))
    if as_json:
        output.print_json(told)
    else:
        _print(told)
    if told.status in (RefundStatus.FAILED, RefundStatus.REJECTED):
        raise typer.Exit(1)


async def _refund_one(customer: Customer, wish: _Wish, wait: float) -> Refund:
    async with customer.client() as bank:
        answer = await _send(bank, customer, wish)
        if not wait or answer.is_final:
            return answer
        try:
            return await bank.settled_refund(answer, timeout=wait, every=2.0)
        except TimeoutError:
            output.echo(f"not final after {wait:g} s", err=True)
        except NeoError as error:
            # What was asked for is done; whoever reads "failed" might do it again.
            output.echo(f"sent, but its status could not be read: {error}", err=True)
        return answer


def _refund_many(customer: Customer, wishes: list[_Wish], *, yes: bool, as_json: bool) -> None:
    whole = sum(wish.amount is None for wish in wishes)
    amount = grouped(total(wish.amount for wish in wishes if wish.amount is not None))
    rest = f", and all that is left of {whole:,} credits" if whole else ""
    confirm(f"refund {len(wishes):,} credits: {amount} rupees{rest}", customer, yes=yes)
    writer = None if as_json else CsvWriter(_Told.__struct_fields__)

    async def run() -> int:
        failures = 0
        async with customer.client() as bank:
            with progress_bar("refunds", visible_above=1) as progress:
                done = 0
                async for told in _each(bank, customer, wishes):
                    done += 1
                    failures += told.outcome not in tuple(RefundStatus)
                    if writer is None:
                        output.print_json(told)
                    else:
                        writer.write([["" if cell is None else cell for cell in _cells(told)]])
                    progress(done, len(wishes))
        return failures

    failures = neo_async.run(run())
    if failures:
        output.echo(f"{failures:,} of {len(wishes):,} are not done", err=True)
        raise typer.Exit(1)


async def _each(
    bank: VirtualAccounts, customer: Customer, wishes: list[_Wish]
) -> AsyncIterator[_Told]:
    """One after the other; what hits all alike ends it, and the rest is told as not sent."""
    end: NeoError | None = None
    for wish in wishes:
        told = _Told(wish.reference, wish.key, "not sent", message=str(end or ""))
        if end is None:
            try:
                answer = await _send(bank, customer, wish)
            except BankRejected as refusal:
                told.outcome, told.message = "refused", str(refusal)
            except RefundUnknown as unknown:
                told.outcome, told.message = "unknown", str(unknown)
            except NeoError as error:
                end, told.message = error, str(error)
            else:
                told.outcome, told.message = answer.status, answer.message
                told.refund_reference, told.amount = answer.refund_reference, answer.amount
        yield told


async def _send(bank: VirtualAccounts, customer: Customer, wish: _Wish) -> Refund:
    return await bank.refund(
        customer.client_name,
        wish.reference,
        amount=wish.amount,
        reason=wish.reason,
        idempotency_key=wish.key,
    )


# --- what is asked for --------------------------------------------------------------------------


def _wishes(file: str, client_name: str, rules: AccountRules) -> list[_Wish]:
    table = read_table(file, _COLUMNS, ("reference",))
    wishes: list[_Wish] = []
    lines: dict[str, int] = {}
    for row in table.rows:
        wish = _checked(table, row, rules)
        if not wish.key:
            what = "\n".join((client_name, wish.reference, str(wish.amount or ""), wish.reason))
            wish.key = str(uuid5(_NAMESPACE, what))
        first = lines.setdefault(wish.key, row.line)
        if first != row.line:
            raise table.error(
                row, f"asks for the same as line {first}; if that is meant, give each a key"
            )
        wishes.append(wish)
    return wishes


def _checked(table: Table, row: Row, rules: AccountRules) -> _Wish:
    try:
        return _wish(rules, *(row[name] for name in _COLUMNS))
    except InvalidField as error:
        raise table.error(row, error) from error


def _wish(rules: AccountRules, reference: str, amount: str, reason: str, key: str) -> _Wish:
    return _Wish(
        rules.reference("reference", reference),
        money("amount", amount) if amount else None,
        rules.reason(reason),
        rules.key(key) if key else "",
    )


def _describe(wish: _Wish) -> str:
    amount = "what is left" if wish.amount is None else f"{grouped(wish.amount)} rupees"
    return f"refund {amount} of {wish.reference}"


# --- what became of it --------------------------------------------------------------------------


def _cells(told: _Told) -> list[object]:
    return [getattr(told, name) for name in told.__struct_fields__]


def _print(answer: Refund) -> None:
    amount = output.NOTHING if answer.amount is None else grouped(answer.amount)
    output.print_table(
        (Column("Refund"), Column("", is_whole=True)),
        (
            ("Status", Cell(answer.status_text, _STYLES.get(answer.status, ""))),
            ("Rupees", amount),
            ("Reference", answer.refund_reference),
            ("Of", answer.reference),
            ("UTR", answer.utr or output.NOTHING),
            ("The bank says", answer.message or output.NOTHING),
            ("Key", answer.idempotency_key),
        ),
    )
