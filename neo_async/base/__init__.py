"""Helpers that import nothing of the package: text, India's clock, loggers."""
