"""Candles of the past: synthetic history and the trade tape."""
