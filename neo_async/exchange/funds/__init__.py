"""Mutual funds beside the exchange, behind Kite Connect's protocol.

`house` is the pure, seeded machine, `door` what callers see of it.
"""
