"""Orders by client tag, and by the caller's own part of it."""

from __future__ import annotations

from collections.abc import Iterable

from neo_async.execution.order import Order
from neo_async.wire.tags import own_tag, without_suffix


class TagIndex:
    """Finds orders by client tag as placed: without what the broker appends."""

    def __init__(self) -> None:
        self._by_tag: dict[str, Order] = {}
        self._by_own_tag: dict[str, dict[str, Order]] = {}
        """Orders whose caller gave a tag, by that and by number."""

    def add(self, order: Order) -> None:
        """Add an order under its client tag, if it has one. Of several orders with one client tag,
        `find` returns the one that was added first."""
        tag = order.client_tag
        if tag:
            self._by_tag.setdefault(without_suffix(tag) if "-" in tag else tag, order)
            if own := own_tag(tag):
                self._by_own_tag.setdefault(own, {})[order.number] = order

    def remove(self, order: Order, client_tag: str) -> None:
        """Remove an order that was added under a client tag."""
        tag = without_suffix(client_tag)
        if self._by_tag.get(tag) is order:
            del self._by_tag[tag]
        own = own_tag(client_tag)
        if (orders := self._by_own_tag.get(own)) is not None:
            orders.pop(order.number, None)
            if not orders:
                del self._by_own_tag[own]

    def find(self, client_tag: str) -> Order | None:
        """Return the order with a client tag, with or without the suffix of a cancel."""
        return self._by_tag.get(without_suffix(client_tag))

    def with_own_tag(self, own: str) -> list[Order]:
        """Return the orders whose client tag has this caller's own part."""
        return list(self._by_own_tag.get(own, {}).values())

    @property
    def own_tags(self) -> Iterable[str]:
        """The caller's own parts of the client tags."""
        return self._by_own_tag.keys()
