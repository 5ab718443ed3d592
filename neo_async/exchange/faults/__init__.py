"""Faults that occur at random, from one seed."""
