"""Accounts: credentials and servers, from the environment, a file or the keyring."""
