"""An exchange and broker of one's own, to test and paper-trade against."""

from neo_async.exchange.exchange import Exchange

__all__ = ["Exchange"]
