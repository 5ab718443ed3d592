"""Nouns: enums and structs, no behaviour beyond what their own fields say."""
