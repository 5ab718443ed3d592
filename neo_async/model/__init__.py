"""Enums and structs of the domain. They have no I/O and no state beyond their fields."""
