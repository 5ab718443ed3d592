"""The books by themselves: whatever is done to them, every credit is delivered in order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.exchange.bank.books import BATCH, Books
from neo_async.exchange.bank.types import Payment, Refused, VirtualAccount, make_clients
from tests.exchange.callers import START

CLIENTS = make_clients(7)
PHYSICAL = CLIENTS[0].physical_accounts[0]
PAYMENT = Payment(amount=100)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("credit"), st.integers(1, 250)),
        st.tuples(st.just("fetch"), st.just(0)),
        st.tuples(st.just("ack"), st.integers(-3, 0)),
    ),
    max_size=40,
)


def books() -> Books:
    books = Books(CLIENTS, 7)
    books.create(
        VirtualAccount(
            number="ACME00000001", client="ACME", physical_account=PHYSICAL, name="Asha Rao"
        )
    )
    return books


@settings(max_examples=200, deadline=None)
@given(steps)
def test_every_credit_is_acknowledged_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    kept = books()
    paid = 0
    received: list[int] = []
    batches: list[tuple[str, list[int]]] = []
    acknowledged: set[str] = set()
    for step, number in steps:
        if step == "credit":
            kept.credit("ACME00000001", PAYMENT, number, START)
            paid += number
        elif step == "fetch":
            batch = kept.fetch(PHYSICAL)
            rows = [row.sequence for row in kept.credits(PHYSICAL, batch.first, batch.last)]
            assert len(rows) == batch.count <= BATCH
            if batch.id:
                if (batch.id, rows) not in batches:
                    batches.append((batch.id, rows))
                assert batch.id not in acknowledged
            else:
                assert len(received) == paid
        elif batches:
            batch_id, rows = batches[max(number - 1, -len(batches))]
            with pytest.raises(Refused):
                kept.acknowledge(PHYSICAL, batch_id, len(rows) + 1)
            already = kept.acknowledge(PHYSICAL, batch_id, len(rows))
            assert already is (batch_id in acknowledged)
            if not already:
                acknowledged.add(batch_id)
                received += rows
    assert received == list(range(1, len(received) + 1))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20), st.data())
def test_every_credit_is_found_by_its_reference(counts: list[int], data: st.DataObject) -> None:
    kept = books()
    for count in counts:
        kept.credit("ACME00000001", PAYMENT, count, START)
    sequence = data.draw(st.integers(1, sum(counts)))
    (credit,) = kept.credits(PHYSICAL, sequence, sequence)
    refund = kept.refund(CLIENTS[0], "r", credit.reference, None, START)
    assert (refund.transaction, refund.amount) == (credit.reference, 100)


@pytest.mark.parametrize("seed", [1, 2])
def test_clients_share_nothing(seed: int) -> None:
    first, second = make_clients(seed)
    accounts = first.physical_accounts + second.physical_accounts
    assert len(set(accounts)) == len(accounts)
    assert {first.client_id, first.client_secret}.isdisjoint(
        {second.client_id, second.client_secret}
    )
