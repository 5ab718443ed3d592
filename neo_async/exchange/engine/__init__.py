"""The matching engine: commands and a clock in, trades out."""
