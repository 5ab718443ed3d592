"""Exit plans: bracket, cover, OCO, trailing stop and price triggers, kept by the client."""
