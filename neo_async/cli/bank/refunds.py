"""The command that sends refunds. A row of a file has the same key whenever it is sent, so that a
file can be sent again after any failure."""

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
from neo_async.cli.bank.connection import Customer, ProfileFile
from neo_async.cli.bank.tables import CsvFile, Row, Table, read_table
from neo_async.cli.csv_output import CsvWriter
from neo_async.cli.output import AsJson, Cell
from neo_async.cli.parameters import seconds
from neo_async.cli.prompts import Yes, confirm
from neo_async.cli.table_layout import Column
from neo_async.errors import BankRejected, InvalidField, NeoError, RefundUnknown, UsageError
from neo_async.model.money import grouped, total

_COLUMNS = ("reference", "amount", "reason", "key")
_NAMESPACE = UUID("6f1d2a53-7f5e-5d0b-9a77-0b6c1e0f4d11")
"""Namespace of the keys that are generated for rows."""

_STYLES = {
    RefundStatus.SUCCESS: "green",
    RefundStatus.FAILED: "red",
    RefundStatus.REJECTED: "red",
    RefundStatus.UNKNOWN: "yellow",
}


class _RefundRequest(msgspec.Struct):
    """A refund to send."""

    reference: str
    amount: Decimal | None
    reason: str
    key: str


class _Result(msgspec.Struct):
    """The outcome of a refund, as a row of the results."""

    reference: str
    key: str
    outcome: str
    refund_reference: str = ""
    amount: Decimal | None = None
    message: str = ""


def refund(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="Transaction reference of the credit.")
    ] = "",
    amount: Annotated[
        str | None,
        typer.Option(metavar="RUPEES", help="Amount; by default all that is left of the credit."),
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Reason, for your records.")] = "",
    key: Annotated[
        str, typer.Option(metavar="UUID", help="Key of an earlier try, which is looked up first.")
    ] = "",
    wait: Annotated[
        float,
        typer.Option(
            parser=seconds(0),
            metavar="SECONDS",
            help="Longest wait for a final state; 0 does not wait.",
        ),
    ] = 0.0,
    csv: CsvFile = None,
    profile: ProfileFile = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send the money of a credit back, or a part of it.

    neo-async bank refund AXISN52026111900012345 --amount 500 --wait 60

    neo-async bank refund --csv refunds.csv > results.csv

    Columns: reference, amount, reason, key. A row without a key gets one that is computed from its
    content, so that sending a file again sends no money twice.
    """
    customer = Customer(profile)
    rules = AccountRules(customer.profile)
    rules.client_name(customer.client_name)
    if csv is not None:
        if reference or amount or reason or key:
            raise UsageError("--csv names the refunds: give no other argument of a refund")
        if wait:
            raise UsageError("--wait is for a single refund")
        _refund_many(
            customer, _read_requests(csv, customer.client_name, rules), yes=yes, as_json=as_json
        )
        return
    request = _request(rules, reference, amount or "", reason, key)
    confirm(_describe(request), customer, yes=yes)
    result = neo_async.run(_refund_one(customer, request, wait))
    if as_json:
        output.print_json(result)
    else:
        _print(result)
    if result.status in (RefundStatus.FAILED, RefundStatus.REJECTED):
        raise typer.Exit(1)


async def _refund_one(customer: Customer, request: _RefundRequest, wait: float) -> Refund:
    async with customer.client() as bank:
        answer = await _send(bank, customer, request)
        if not wait or answer.is_final:
            return answer
        try:
            return await bank.settled_refund(answer, timeout=wait, every=2.0)
        except TimeoutError:
            output.echo(f"not final after {wait:g} s", err=True)
        except NeoError as error:
            # The refund was sent. A failure here could make the user repeat it.
            output.echo(f"sent, but its status could not be read: {error}", err=True)
        return answer


def _refund_many(
    customer: Customer, requests: list[_RefundRequest], *, yes: bool, as_json: bool
) -> None:
    whole = sum(request.amount is None for request in requests)
    amount = grouped(total(request.amount for request in requests if request.amount is not None))
    rest = f", and all that is left of {whole:,} credits" if whole else ""
    confirm(f"refund {len(requests):,} credits: {amount} rupees{rest}", customer, yes=yes)
    writer = None if as_json else CsvWriter(_Result.__struct_fields__)

    async def run() -> int:
        failures = 0
        async with customer.client() as bank:
            with output.progress_bar("refunds", visible_above=1) as progress:
                done = 0
                async for result in _send_each(bank, customer, requests):
                    done += 1
                    failures += result.outcome not in tuple(RefundStatus)
                    if writer is None:
                        output.print_json(result)
                    else:
                        writer.write([["" if cell is None else cell for cell in _cells(result)]])
                    progress(done, len(requests))
        return failures

    failures = neo_async.run(run())
    if failures:
        output.echo(f"{failures:,} of {len(requests):,} are not done", err=True)
        raise typer.Exit(1)


async def _send_each(
    bank: VirtualAccounts, customer: Customer, requests: list[_RefundRequest]
) -> AsyncIterator[_Result]:
    """Send refunds one after another. After a failure that concerns all, the rest is not sent."""
    end: NeoError | None = None
    for request in requests:
        result = _Result(request.reference, request.key, "not sent", message=str(end or ""))
        if end is None:
            try:
                answer = await _send(bank, customer, request)
            except BankRejected as refusal:
                result.outcome, result.message = "refused", str(refusal)
            except RefundUnknown as unknown:
                result.outcome, result.message = "unknown", str(unknown)
            except NeoError as error:
                end, result.message = error, str(error)
            else:
                result.outcome, result.message = answer.status, answer.message
                result.refund_reference, result.amount = answer.refund_reference, answer.amount
        yield result


async def _send(bank: VirtualAccounts, customer: Customer, request: _RefundRequest) -> Refund:
    return await bank.refund(
        customer.client_name,
        request.reference,
        amount=request.amount,
        reason=request.reason,
        idempotency_key=request.key,
    )


# --- requests -----------------------------------------------------------------------------------


def _read_requests(file: str, client_name: str, rules: AccountRules) -> list[_RefundRequest]:
    table = read_table(file, _COLUMNS, ("reference",))
    requests: list[_RefundRequest] = []
    lines: dict[str, int] = {}
    for row in table.rows:
        request = _checked(table, row, rules)
        if not request.key:
            what = "\n".join(
                (client_name, request.reference, str(request.amount or ""), request.reason)
            )
            request.key = str(uuid5(_NAMESPACE, what))
        first = lines.setdefault(request.key, row.line)
        if first != row.line:
            raise table.error(
                row, f"is the same as line {first}; if that is intended, give each a key"
            )
        requests.append(request)
    return requests


def _checked(table: Table, row: Row, rules: AccountRules) -> _RefundRequest:
    try:
        return _request(rules, *(row[name] for name in _COLUMNS))
    except InvalidField as error:
        raise table.error(row, error) from error


def _request(
    rules: AccountRules, reference: str, amount: str, reason: str, key: str
) -> _RefundRequest:
    return _RefundRequest(
        rules.reference("reference", reference),
        money("amount", amount) if amount else None,
        rules.reason(reason),
        rules.key(key) if key else "",
    )


def _describe(request: _RefundRequest) -> str:
    amount = "what is left" if request.amount is None else f"{grouped(request.amount)} rupees"
    return f"refund {amount} of {request.reference}"


# --- results ------------------------------------------------------------------------------------


def _cells(result: _Result) -> list[object]:
    return [getattr(result, name) for name in result.__struct_fields__]


def _print(answer: Refund) -> None:
    amount = output.NOTHING if answer.amount is None else grouped(answer.amount)
    output.print_table(
        (Column("Refund"), Column("", is_whole=True)),
        (
            ("Status", Cell(answer.status_text, _STYLES.get(answer.status, ""))),
            ("Rupees", amount),
            ("Reference", answer.refund_reference),
            ("Credit", answer.reference),
            ("UTR", answer.utr or output.NOTHING),
            ("Message", answer.message or output.NOTHING),
            ("Key", answer.idempotency_key),
        ),
    )
