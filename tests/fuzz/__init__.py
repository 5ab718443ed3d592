"""Hostile bytes for everything that reads what others wrote.

`readers` names every reader with its errors and valid payloads, `mutations` spoils those payloads.
In the suite a few inputs are tried for each (`pytest tests/fuzz --examples 10000` tries more), and
`python -m tests.fuzz [READER ...] --inputs N --seconds S` tries as many as time allows.
"""
