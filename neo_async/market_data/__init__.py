"""Scrip masters, quotes, chains and candles."""
