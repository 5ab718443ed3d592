"""The pytest plugin. Its entry point is `fixtures`, which imports nothing heavy before its use."""
