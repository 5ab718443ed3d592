"""An exchange and broker of one's own, to test and paper-trade against."""

from neo_async.exchange.bank import BankSettings
from neo_async.exchange.core.types import Hours, Rules
from neo_async.exchange.exchange import Exchange
from neo_async.exchange.server.door_settings import DoorSettings
from neo_async.exchange.server.durations import Exponential, LogNormal, Uniform
from neo_async.exchange.server.fault_settings import Faults
from neo_async.exchange.server.feed_settings import AuthAnswer, FeedSettings

__all__ = [
    "AuthAnswer",
    "BankSettings",
    "DoorSettings",
    "Exchange",
    "Exponential",
    "Faults",
    "FeedSettings",
    "Hours",
    "LogNormal",
    "Rules",
    "Uniform",
]
