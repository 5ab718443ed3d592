"""Files, locks and signals: what a program shares with the operating system."""
