"""The broker's formats: bytes to structs and back, as pure functions."""
