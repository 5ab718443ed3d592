"""Logins, authenticated calls, and polling."""
