"""The market feed, the column feed, the order feed, and recordings."""
