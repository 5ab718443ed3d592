"""Mutual funds beside the exchange, behind Kite Connect's protocol.

`simulator` is the pure, seeded state machine, `service` the protocol around it.
"""
