"""Short keyword arguments for exchanges in tests, put into the groups that `Exchange` takes."""

from __future__ import annotations

from typing import Any

from neo_async.exchange import Behaviour, Exchange, Recording, Rules, Security

EVERY_ORDER = Rules(covered_orders=True, stop_market_orders=True)
"""Rules of a market that accepts CO, BO and SL-M too."""

_BEHAVIOUR = Behaviour.__struct_fields__
_SECURITY = Security.__struct_fields__


def exchange_with(**options: Any) -> Exchange:
    """Return an exchange; settings of a group, and `replay` with its `speed`, come by name."""
    behaviour = {name: options.pop(name) for name in _BEHAVIOUR if name in options}
    security = {name: options.pop(name) for name in _SECURITY if name in options}
    if behaviour:
        options["behaviour"] = Behaviour(**behaviour)
    if security:
        options["security"] = Security(**security)
    if "replay" in options:
        options["recording"] = Recording(options.pop("replay"), options.pop("speed", 1.0))
    return Exchange(**options)
