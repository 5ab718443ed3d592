"""The simulator's market feed and order feed."""
