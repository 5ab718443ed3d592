"""The simulator's REST services, in the broker's formats."""
