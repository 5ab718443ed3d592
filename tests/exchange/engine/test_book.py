from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from neo_async.exchange.engine.book import Book, Resting, quote
from neo_async.model.enums import Side

sides = st.sampled_from(list(Side))
actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("enter"), sides, st.integers(95, 105), st.integers(1, 50), st.integers(0, 20)
        ),
        st.tuples(st.just("leave"), st.integers(0, 200)),
        st.tuples(st.just("shrink"), st.integers(0, 200), st.integers(1, 50)),
    ),
    max_size=60,
)


def enter(book: Book, side: Side, price: int, quantity: int, disclosed: int = 0) -> Resting:
    """As the market does: trade first, then let the remainder rest."""
    trades = book.against(side).execute(price, quantity)
    entry = quote(side, price, quantity - sum(q for _, q in trades), disclosed)
    if entry.quantity:
        book.side(side).add(entry)
    return entry


@given(actions)
def test_the_book_is_never_crossed_and_loses_no_quantity(steps):
    book = Book()
    live: list[Resting] = []
    for step in steps:
        if step[0] == "enter":
            _, side, price, quantity, disclosed = step
            before = sum(entry.quantity for entry in live)
            entry = enter(book, side, price, quantity, min(disclosed, quantity))
            live.append(entry)
            traded = quantity - entry.quantity
            assert sum(entry.quantity for entry in live) == before + quantity - 2 * traded
        else:
            live = [entry for entry in live if entry.quantity]
            if not live:
                continue
            entry = live[step[1] % len(live)]
            if step[0] == "leave":
                book.side(entry.side).remove(entry)
                live.remove(entry)
            else:
                book.side(entry.side).shrink(entry, min(step[2], entry.quantity))
        resting = [entry for entry in live if entry.quantity]
        bids, asks = book.bids.entries(), book.asks.entries()
        assert {id(entry) for entry in bids + asks} == {id(entry) for entry in resting}
        if bids and asks:
            assert bids[0].price < asks[0].price
        for side, entries in ((book.bids, bids), (book.asks, asks)):
            shown = sum(visible for _, visible, _ in side.top(1000))
            assert shown == sum(entry.visible for entry in entries)
            assert all(0 < entry.visible <= entry.quantity for entry in entries)


@given(
    st.lists(st.tuples(st.integers(100, 104), st.integers(1, 9)), min_size=1, max_size=30),
    st.integers(1, 200),
)
def test_better_prices_trade_first_and_older_orders_before_younger(asks, wanted):
    book = Book()
    entries = [enter(book, Side.SELL, price, quantity) for price, quantity in asks]
    order = {id(entry): arrival for arrival, entry in enumerate(entries)}

    trades = book.asks.execute(104, wanted)

    ranks = [(entry.price, order[id(entry)]) for entry, _ in trades]
    assert ranks == sorted(ranks)
    available = sum(quantity for _, quantity in asks)
    assert sum(traded for _, traded in trades) == min(wanted, available)
    # Only the last one touched may have something left.
    assert all(entry.quantity == 0 for entry, _ in trades[:-1])


def test_prices_beyond_the_limit_are_left_alone():
    book = Book()
    enter(book, Side.SELL, 101, 5)
    enter(book, Side.SELL, 102, 5)

    trades = book.asks.execute(101, 50)

    assert [(entry.price, traded) for entry, traded in trades] == [(101, 5)]
    assert book.asks.top(5) == [(102, 5, 1)]


def test_each_slice_of_a_disclosed_order_queues_behind_what_was_shown_before():
    book = Book()
    iceberg = enter(book, Side.SELL, 100, 30, disclosed=10)
    plain = enter(book, Side.SELL, 100, 10)
    assert book.asks.top(1) == [(100, 20, 2)]

    trades = book.asks.execute(100, 25)

    assert trades == [(iceberg, 10), (plain, 10), (iceberg, 5)]
    assert book.asks.top(1) == [(100, 5, 1)]


def test_shrinking_keeps_the_place_in_the_queue():
    book = Book()
    first = enter(book, Side.BUY, 100, 30)
    enter(book, Side.BUY, 100, 30)

    book.bids.shrink(first, 5)

    assert book.bids.execute(100, 4) == [(first, 4)]
    assert book.bids.top(1) == [(100, 31, 2)]


def test_depth_lists_the_best_prices_first():
    book = Book()
    for price in (99, 97, 98):
        enter(book, Side.BUY, price, 1)
    for price in (103, 101, 102):
        enter(book, Side.SELL, price, 2)

    assert [price for price, _, _ in book.bids.top(2)] == [99, 98]
    assert [price for price, _, _ in book.asks.top(2)] == [101, 102]
