"""Positions, holdings, limits, margin, and live P&L."""
