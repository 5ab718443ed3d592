"""Recordings of a market feed, played back as the market."""
