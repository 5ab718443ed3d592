"""The invariants of `resolution`, numbered as there, each as a property of the pure functions."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.execution.expected_effect import ExpectedEffect, effect_of_intent
from neo_async.execution.journal_schema import Intent
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.reports import reported_terms
from neo_async.execution.resolution import (
    MAX_CLOCK_SKEW_NS,
    BookCompleteness,
    Proof,
    can_be_ruled_out,
    candidates,
    could_be,
    is_late,
    placed_order,
    proof_by_absence,
    proof_by_history,
    proof_by_report,
    proof_by_tags,
    second_orders,
    tags_in,
    when_ruled_out,
    without_legs,
)
from neo_async.model.enums import OrderStatus, Side
from neo_async.model.orders import HistoryRow, OrderRow
from neo_async.wire.rules import modify_form

NUMBER = "261123000000001"
OTHER = "261123000000002"
TODAY = "261123"
SENT_NS = 1_795_000_000 * 10**9
KIND = ("nse_cm", "ITBEES-EQ", "B", "CNC")
STATUSES = [status.value for status in OrderStatus if status is not OrderStatus.UNKNOWN]
CANCELLING = {"cancelled", "cancel pending", "cancelled after market order"}
TERMS = {"price": 39.1, "quantity": 20, "trigger": 38.5, "validity": "IOC"}
BEFORE = {"price": 39.0, "quantity": 10, "trigger": 38.0, "validity": "DAY"}

numbers = st.integers(1, 9).map(lambda n: f"{TODAY}{n:09}")
times_ns = st.integers(0, 20)
statuses = st.sampled_from(STATUSES)
tags = st.sampled_from(["ours", "theirs", "another"])
terms = st.sets(st.sampled_from(sorted(TERMS)), min_size=1).map(
    lambda names: {name: TERMS[name] for name in names}
)


def row(number: str = NUMBER, **fields: Any) -> OrderRow:
    """A row of an open order; fields that are `missing` have no value."""
    segment, symbol, side, product = KIND
    values: dict[str, Any] = {
        "number": number,
        "status_text": "open",
        "segment": segment,
        "symbol": symbol,
        "side": Side(side),
        "order_type": "L",
        "product": product,
        "updated_ns": SENT_NS,
        **BEFORE,
    }
    return OrderRow(**{**values, **fields})


def state(**fields: Any) -> HistoryRow:
    values: dict[str, Any] = {
        "number": NUMBER,
        "status_text": "open",
        "order_type": "L",
        "updated_ns": SENT_NS,
        **BEFORE,
    }
    return HistoryRow(**{**values, **fields})


def order_of(shown: OrderRow) -> Order:
    return OrderCache().register(shown)


def modification(wanted: dict[str, Any], **fields: Any) -> ExpectedEffect:
    """A modification that changes these terms of `row()`, and leaves the others."""
    before = reported_terms(row())
    values = {
        name: Decimal(str(value)) if name in ("price", "trigger") else value
        for name, value in wanted.items()
    }
    return ExpectedEffect(
        action="modify",
        number=NUMBER,
        terms=msgspec.structs.replace(before, **values),
        terms_before=None if fields.get("is_from_journal") else before,
        **fields,
    )


def cancellation(**fields: Any) -> ExpectedEffect:
    return ExpectedEffect(action="cancel", number=NUMBER, **fields)


def placement(**fields: Any) -> ExpectedEffect:
    return ExpectedEffect(action="place", client_tag="ours", kind=KIND, **fields)


expectations = st.one_of(
    st.just(placement()),
    st.builds(modification, terms, was_final=st.booleans(), is_from_journal=st.booleans()),
    st.builds(
        cancellation,
        was_final=st.booleans(),
        was_cancelling=st.booleans(),
        is_from_journal=st.booleans(),
    ),
)


# --- 1: positive proof only -----------------------------------------------------------------------


@given(terms, st.sets(st.sampled_from(sorted(TERMS))), statuses, times_ns, times_ns)
def test_1_a_modification_is_proven_only_by_a_report_that_has_all_its_terms(
    wanted: dict[str, Any], shown: set[str], status: str, since_ns: int, updated_ns: int
) -> None:
    fields = {name: TERMS[name] for name in shown}
    report = row(status_text=status, updated_ns=updated_ns, **fields)
    expected = modification(wanted, since_ns=since_ns)
    proof = proof_by_report(expected, order_of(report), report)
    assert proof in (Proof.NONE, Proof.TOOK_EFFECT)
    if proof is Proof.TOOK_EFFECT:
        assert wanted.keys() <= shown
        assert status != "not modified"


@given(statuses, st.booleans(), st.booleans())
def test_1_a_cancellation_is_proven_only_by_the_states_that_it_leads_to(
    status: str, was_final: bool, was_cancelling: bool
) -> None:
    report = row(status_text=status)
    expected = cancellation(was_final=was_final, was_cancelling=was_cancelling)
    proof = proof_by_report(expected, order_of(report), report)
    if proof is Proof.TOOK_EFFECT:
        assert status in CANCELLING
    if proof is Proof.TOO_LATE:
        assert order_of(report).is_final


@given(terms, terms)
def test_1_after_a_crash_a_history_has_to_show_all_that_the_modification_set(
    wanted: dict[str, Any], shown: dict[str, Any]
) -> None:
    history = [state(status_text="modified", updated_ns=SENT_NS + 1, **shown), state()]
    expected = modification(wanted, since_ns=SENT_NS, is_from_journal=True)
    proof = proof_by_history(expected, order_of(row()), history).proof
    assert proof is (Proof.TOOK_EFFECT if shown == wanted else Proof.NOT_RECEIVED)


@given(st.lists(st.tuples(numbers, st.sets(tags)), max_size=6), st.integers(0, 3))
def test_1_a_placement_is_proven_only_by_the_order_whose_history_has_its_tag(
    histories: list[tuple[str, set[str]]], unread: int
) -> None:
    count = len(histories) + unread
    resolution = proof_by_tags(placement(), histories, candidate_count=count)
    holders = [number for number, its_tags in histories if "ours" in its_tags]
    if holders:
        assert (resolution.proof, resolution.number) == (Proof.TOOK_EFFECT, holders[0])
    else:
        assert resolution.proof is (Proof.IMPOSSIBLE if unread else Proof.NOT_RECEIVED)


@given(terms)
def test_1_a_modification_that_was_refused_is_not_proven_by_the_terms_shown_with_the_refusal(
    wanted: dict[str, Any],
) -> None:
    refused = row(status_text="not modified", updated_ns=SENT_NS + 2, **wanted)
    expected = modification(wanted, since_ns=SENT_NS)
    assert proof_by_report(expected, order_of(row()), refused) is Proof.NONE
    history = [
        state(status_text="not modified", updated_ns=SENT_NS + 2, **wanted),
        state(status_text="modify pending", updated_ns=SENT_NS + 1, **wanted),
        state(),
    ]
    resolution = proof_by_history(expected, order_of(row()), history)
    assert resolution.proof is Proof.NOT_RECEIVED


def modify_intent(form: str) -> Intent:
    return Intent(
        id=1, at_ns=SENT_NS, action="modify", client_tag="", order_number=NUMBER, form=form,
        outcome=None, reason="",
    )  # fmt: skip


@given(terms)
def test_1_after_a_crash_the_journal_has_the_terms_that_the_modification_set(
    wanted: dict[str, Any],
) -> None:
    sent = modification(wanted).terms
    assert sent is not None
    form = msgspec.json.encode(modify_form(NUMBER, sent)).decode()
    read = effect_of_intent(modify_intent(form))
    assert read.terms == msgspec.structs.replace(sent, segment="", symbol="", side="", product="")
    assert read.terms_before is None
    assert read.changed_terms == {
        "quantity", "validity", "disclosed_quantity", "trigger", "order_type", "price",
    }  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [{"pr": "39,10"}, {"pr": "sNaN"}, {"tp": "inf"}, {"qt": "ten"}, {"pt": "L1"}, {"dq": None}],
)
def test_1_after_a_crash_nothing_proves_a_modification_whose_form_cannot_be_read(
    changed: dict[str, Any],
) -> None:
    sent = modification(TERMS).terms
    assert sent is not None
    form = {**msgspec.to_builtins(modify_form(NUMBER, sent)), **changed}
    expected = effect_of_intent(modify_intent(msgspec.json.encode(form).decode()))
    assert (expected.terms, expected.changed_terms) == (None, frozenset())
    history = [state(status_text="modified", updated_ns=SENT_NS + 1, **TERMS), state()]
    resolution = proof_by_history(expected, order_of(row()), history)
    assert resolution.proof is Proof.NOT_RECEIVED


# --- 2: nothing from before the request -----------------------------------------------------------


@given(terms, statuses, st.integers(1, 20), st.integers(0, 20))
def test_2_a_report_from_before_a_modification_proves_nothing_whatever_it_shows(
    wanted: dict[str, Any], status: str, updated_ns: int, later: int
) -> None:
    report = row(status_text=status, updated_ns=updated_ns, **wanted)
    expected = modification(wanted, since_ns=updated_ns + later)
    assert proof_by_report(expected, order_of(report), report) is Proof.NONE


@given(terms, statuses, st.sampled_from(["was_final", "is_from_journal"]))
def test_2_no_report_proves_a_modification_when_it_cannot_be_compared_with_the_order_before(
    wanted: dict[str, Any], status: str, reason: str
) -> None:
    report = row(status_text=status, updated_ns=SENT_NS + 1, **wanted)
    expected = modification(wanted, since_ns=SENT_NS, **{reason: True})
    assert proof_by_report(expected, order_of(report), report) is Proof.NONE
    same = modification({}, since_ns=SENT_NS)
    assert proof_by_report(same, order_of(report), report) is Proof.NONE


@given(st.lists(st.tuples(statuses, st.integers(1, 20)), min_size=1, max_size=6), terms)
def test_2_a_history_from_before_a_modification_proves_that_it_had_no_effect(
    states: list[tuple[str, int]], wanted: dict[str, Any]
) -> None:
    history = [state(status_text=status, updated_ns=at, **wanted) for status, at in states]
    expected = modification(wanted, since_ns=20)
    resolution = proof_by_history(expected, order_of(row(updated_ns=20)), history)
    assert resolution.proof is Proof.NOT_RECEIVED


@given(st.sampled_from(sorted(CANCELLING)), st.booleans())
def test_2_the_effect_of_an_earlier_cancellation_proves_no_later_one(
    status: str, was_final: bool
) -> None:
    report = row(status_text=status)
    order = order_of(report)
    expected = cancellation(was_final=was_final, was_cancelling=not was_final)
    proof = proof_by_report(expected, order, report)
    assert proof is not Proof.TOOK_EFFECT or (order.is_final and not was_final)


@given(st.integers(1, 20), st.integers(0, 20))
def test_2_after_a_crash_a_cancellation_from_before_the_request_proves_that_it_came_too_late(
    updated_ns: int, later: int
) -> None:
    report = row(status_text="cancelled", updated_ns=updated_ns)
    expected = cancellation(since_ns=updated_ns + later, is_from_journal=True)
    assert proof_by_report(expected, order_of(report), report) is Proof.TOO_LATE


@given(
    st.lists(st.tuples(numbers, st.booleans()), max_size=9, unique_by=lambda one: one[0]),
    st.sets(numbers),
)
def test_2_an_own_order_or_one_that_a_book_showed_before_the_placement_is_no_candidate(
    orders: list[tuple[str, bool]], own: set[str]
) -> None:
    rows = [row(number) for number, _ in orders]
    first_seen_at = {number: 9.0 if was_before else 11.0 for number, was_before in orders}
    found = candidates(
        placement(),
        rows,
        own=own,
        first_seen_at=first_seen_at,
        sent_at=10.0,
        sent_ns=SENT_NS,
    )
    assert [each.number for each in found] == [
        number for number, before in orders if not before and number not in own
    ]


# --- 3: what cannot be read -----------------------------------------------------------------------


@given(terms, st.data())
def test_3_a_report_without_one_of_the_terms_proves_no_modification(
    wanted: dict[str, Any], data: st.DataObject
) -> None:
    lost = data.draw(st.sets(st.sampled_from(sorted(wanted)), min_size=1))
    report = row(missing=frozenset(lost), updated_ns=SENT_NS + 1, **wanted)
    expected = modification(wanted, since_ns=SENT_NS)
    assert proof_by_report(expected, order_of(row()), report) is Proof.NONE


@given(terms, st.data())
def test_3_a_history_without_one_of_the_terms_neither_proves_nor_disproves(
    wanted: dict[str, Any], data: st.DataObject
) -> None:
    lost = data.draw(st.sets(st.sampled_from(sorted([*wanted, "status_text"])), min_size=1))
    blank = {"status_text": ""} if "status_text" in lost else {"status_text": "modified"}
    odd = state(updated_ns=SENT_NS + 1, missing=frozenset(lost), **{**wanted, **blank})
    expected = modification(wanted, since_ns=SENT_NS)
    resolution = proof_by_history(expected, order_of(row()), [odd, state()])
    assert resolution.proof is Proof.NONE
    assert "lacks what it would show" in resolution.reason


@given(terms)
def test_3_after_a_crash_a_modified_state_without_a_time_proves_no_modification(
    wanted: dict[str, Any],
) -> None:
    timeless = state(
        status_text="modified", updated_ns=0, missing=frozenset({"updated_ns"}), **wanted
    )
    history = [state(updated_ns=SENT_NS + 1, **wanted), timeless]
    expected = modification(wanted, since_ns=SENT_NS, is_from_journal=True)
    assert proof_by_history(expected, order_of(row()), history).proof is Proof.NONE


@given(terms)
def test_3_a_state_that_cannot_be_read_proves_no_modification(wanted: dict[str, Any]) -> None:
    unread = state(
        status_text="", updated_ns=SENT_NS + 2, missing=frozenset({"status_text"}), **wanted
    )
    history = [unread, state(status_text="modified", updated_ns=SENT_NS + 1), state()]
    expected = modification(wanted, since_ns=SENT_NS)
    assert proof_by_history(expected, order_of(row()), history).proof is Proof.NONE


@given(st.sets(st.sampled_from(["segment", "symbol", "side", "product"])), st.booleans())
def test_3_a_row_that_lacks_its_kind_or_time_may_be_the_placement(
    lost: set[str], has_time: bool
) -> None:
    blank: dict[str, Any] = dict.fromkeys(lost, "")
    odd = row(updated_ns=SENT_NS if has_time else 0, missing=frozenset(lost), **blank)
    assert could_be(placement(), [odd], SENT_NS) == [odd]


@given(st.lists(st.tuples(numbers, st.sets(tags)), min_size=1, max_size=6), st.data())
def test_3_a_tag_that_cannot_be_read_rules_no_placement_out(
    histories: list[tuple[str, set[str]]], data: st.DataObject
) -> None:
    unread = data.draw(st.integers(0, len(histories) - 1))
    odd = state(gui_order_id="", missing=frozenset({"gui_order_id"}))
    histories[unread] = (histories[unread][0], set(tags_in([odd])) | histories[unread][1])
    resolution = proof_by_tags(placement(), histories, candidate_count=len(histories))
    assert resolution.proof in (Proof.NONE, Proof.TOOK_EFFECT)


# --- 4: what rules a request out ------------------------------------------------------------------


@given(st.floats(0, 100), st.floats(0, 100), st.none() | statuses)
def test_4_only_a_book_that_was_requested_after_the_timeout_or_of_a_final_order_rules_out(
    requested_at: float, timeout_at: float, status: str | None
) -> None:
    order = None if status is None else order_of(row(status_text=status))
    assert can_be_ruled_out(
        order, requested_at=requested_at, timeout_at=timeout_at, is_being_resubmitted=False
    ) == (requested_at >= timeout_at or (order is not None and order.is_final))


def absence(expected: ExpectedEffect, **given_: Any) -> Proof:
    """What a complete book of the day proves that has nothing of the request."""
    settings: dict[str, Any] = {
        "order": None,
        "row": None,
        "sent_day": TODAY,
        "sent_ns": SENT_NS,
        "book_day": TODAY,
        "is_complete": True,
        "nameless": [],
        **given_,
    }
    order, shown = settings.pop("order"), settings.pop("row")
    return proof_by_absence(expected, order, shown, **settings).proof


@given(expectations, statuses, st.booleans(), st.booleans())
def test_4_an_order_book_alone_never_proves_that_a_request_was_not_received(
    expected: ExpectedEffect, status: str, is_complete: bool, is_shown: bool
) -> None:
    shown = row(status_text=status) if is_shown and expected.number else None
    order = order_of(row(status_text=status)) if expected.number else None
    proof = absence(expected, row=shown, order=order, is_complete=is_complete)
    assert proof is not Proof.NOT_RECEIVED
    assert proof is not Proof.TOOK_EFFECT
    if not is_complete:
        assert proof is Proof.NONE


@given(st.sets(st.sampled_from(["segment", "symbol", "side", "product"])), st.booleans())
def test_4_a_row_without_a_number_that_could_be_the_placement_keeps_it_in_flight(
    lost: set[str], is_another: bool
) -> None:
    blank: dict[str, Any] = dict.fromkeys(lost, "")
    odd = row("", missing=frozenset({"number", *lost}), **blank)
    if is_another:
        odd = msgspec.structs.replace(odd, updated_ns=SENT_NS - MAX_CLOCK_SKEW_NS - 1)
    expected_proof = Proof.BY_HISTORY if is_another else Proof.NONE
    assert absence(placement(), nameless=[odd]) is expected_proof


@given(st.integers(1, 100), st.integers(1, 100))
def test_4_a_book_behind_the_order_rules_no_change_out(known_s: int, shown_s: int) -> None:
    order = order_of(row(updated_ns=known_s * 10**9))
    shown = row(updated_ns=shown_s * 10**9)
    proof = absence(modification({"price": 39.1}), order=order, row=shown)
    assert proof is (Proof.NONE if shown_s < known_s - 2 else Proof.BY_HISTORY)


@given(st.integers(0, 50), st.integers(0, 200))
def test_4_a_placement_is_ruled_out_only_by_the_histories_of_all_candidates(
    read: int, unread: int
) -> None:
    histories = [(str(number), {"theirs"}) for number in range(read)]
    resolution = proof_by_tags(placement(), histories, candidate_count=read + unread)
    assert resolution.proof is (Proof.IMPOSSIBLE if unread else Proof.NOT_RECEIVED)


@given(st.lists(statuses, max_size=5), terms, terms)
def test_4_a_modification_whose_terms_were_replaced_is_found_in_the_history(
    later: list[str], wanted: dict[str, Any], others: dict[str, Any]
) -> None:
    newer = [
        state(status_text=status, updated_ns=SENT_NS + 2 + at, **{**BEFORE, **others})
        for at, status in enumerate(later)
    ]
    modified = state(status_text="modified", updated_ns=SENT_NS + 1, **wanted)
    expected = modification(wanted, since_ns=SENT_NS)
    history = [*reversed(newer), modified, state()]
    resolution = proof_by_history(expected, order_of(row()), history)
    assert resolution.proof is Proof.TOOK_EFFECT


# --- 5: complete order books ----------------------------------------------------------------------

books = st.lists(
    st.tuples(
        st.sampled_from(["261123", "261124"]),
        st.sets(st.sampled_from([f"26112{day}00000000{n}" for day in "34" for n in "123"])),
        st.sets(st.sampled_from([f"26112{day}00000000{n}" for day in "34" for n in "123"])),
    ),
    max_size=8,
)


@given(books)
def test_5_a_book_lacks_exactly_the_own_orders_of_its_day_whatever_was_read_before(
    steps: list[tuple[str, set[str], set[str]]],
) -> None:
    completeness = BookCompleteness()
    for day, own, shown in steps:
        missing = completeness.missing(shown, own, day)
        assert missing == {number for number in own - shown if number.startswith(day)}


@given(st.lists(st.booleans(), max_size=8))
def test_5_an_empty_book_counts_only_when_the_one_before_was_empty_as_well(
    are_empty: list[bool],
) -> None:
    completeness = BookCompleteness()
    before = False
    for is_empty in are_empty:
        completeness.add([] if is_empty else [row()])
        assert completeness.is_first_empty == (is_empty and not before)
        before = is_empty


# --- 6: the day of a book -------------------------------------------------------------------------


@given(expectations, st.sampled_from(["261122", "261123", "261124"]))
def test_6_a_book_of_another_day_rules_nothing_out_that_it_does_not_show(
    expected: ExpectedEffect, book_day: str
) -> None:
    proof = absence(expected, book_day=book_day)
    if book_day != TODAY:
        assert proof is Proof.IMPOSSIBLE
    else:
        assert proof is (Proof.BY_HISTORY if expected.client_tag else Proof.NONE)


# --- 7 and 8: resubmitted, and claimed by the broker ----------------------------------------------


@given(st.floats(0, 100), st.floats(0, 100), st.none() | statuses)
def test_7_a_request_that_is_being_resubmitted_is_not_ruled_out(
    requested_at: float, timeout_at: float, status: str | None
) -> None:
    assert not can_be_ruled_out(
        None if status is None else order_of(row(status_text=status)),
        requested_at=requested_at,
        timeout_at=timeout_at,
        is_being_resubmitted=True,
    )


@given(expectations)
def test_8_what_the_broker_claims_to_have_stays_unknown_when_nothing_shows_it(
    expected: ExpectedEffect,
) -> None:
    claimed = when_ruled_out(expected, is_proven=True)
    assert claimed.proof is Proof.IMPOSSIBLE
    assert expected.identity in claimed.reason
    assert when_ruled_out(expected, is_proven=False).proof is Proof.NOT_RECEIVED


# --- 9: late orders, and second orders ------------------------------------------------------------


@given(statuses, st.booleans())
def test_9_every_order_under_a_watched_tag_is_late_but_a_rejected_one_of_a_refused_placement(
    status: str, was_refused: bool
) -> None:
    order = order_of(row(status_text=status))
    assert is_late(order, was_refused=was_refused) == (not (was_refused and status == "rejected"))


@given(st.lists(st.tuples(numbers, statuses), min_size=1, unique_by=lambda one: one[0]), st.data())
def test_9_of_the_orders_under_one_tag_all_but_one_and_the_rejected_ones_are_reported(
    shown: list[tuple[str, str]], data: st.DataObject
) -> None:
    orders = [order_of(row(number, status_text=status)) for number, status in shown]
    own = data.draw(st.sets(st.sampled_from([number for number, _ in shown]), max_size=1))
    order = placed_order(orders, own)
    if own:
        assert order.number in own
    elif order.status is OrderStatus.REJECTED:
        assert all(status == "rejected" for _, status in shown)
    assert {order.number, *(other.number for other in second_orders(order, orders))} == {
        number for number, status in shown if status != "rejected" or number == order.number
    }


@given(st.lists(numbers, min_size=1, unique=True), st.data())
def test_9_the_legs_of_an_order_are_no_orders_under_its_tag(
    shown: list[str], data: st.DataObject
) -> None:
    parents = {
        number: data.draw(st.sampled_from(["", number, *shown[: position + 1], "elsewhere"]))
        for position, number in enumerate(shown)
    }
    rows = [row(number, parent_number=parents[number]) for number in reversed(shown)]
    legs = [number for number in shown if parents[number] in set(shown) - {number}]
    assert [each.number for each in without_legs(rows, None)] == [
        number for number in shown if number not in legs
    ]


@pytest.mark.parametrize("known", [None, OTHER])
def test_9_a_leg_of_the_known_order_is_none_even_in_a_report_without_that_order(
    known: str | None,
) -> None:
    leg = row(NUMBER, parent_number=OTHER)
    assert without_legs([leg], known) == ([leg] if known is None else [])
