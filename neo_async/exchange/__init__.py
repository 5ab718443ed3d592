"""An exchange and broker of one's own, to test and paper-trade against."""

from neo_async.exchange.bank.settings import BankSettings
from neo_async.exchange.engine.types import Hours, Rules
from neo_async.exchange.faults.durations import Exponential, LogNormal, Uniform
from neo_async.exchange.faults.settings import Faults
from neo_async.exchange.feeds.settings import AuthAnswer, FeedSettings
from neo_async.exchange.rest.settings import BrokerSettings
from neo_async.exchange.settings import Behaviour, Recording, Security
from neo_async.exchange.simulator import Exchange

__all__ = [
    "AuthAnswer",
    "BankSettings",
    "Behaviour",
    "BrokerSettings",
    "Exchange",
    "Exponential",
    "Faults",
    "FeedSettings",
    "Hours",
    "LogNormal",
    "Recording",
    "Rules",
    "Security",
    "Uniform",
]
