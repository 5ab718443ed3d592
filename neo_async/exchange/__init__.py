"""An exchange and broker of one's own, to test and paper-trade against."""

from neo_async.exchange.exchange import Exchange
from neo_async.exchange.server.feed_settings import AuthAnswer, FeedSettings

__all__ = ["AuthAnswer", "Exchange", "FeedSettings"]
