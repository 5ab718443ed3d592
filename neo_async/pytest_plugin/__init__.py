"""The pytest plugin: the entry point loads `fixtures`, which imports nothing heavy before its use."""
