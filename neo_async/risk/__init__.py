"""Pre-trade checks, exposure, the kill switch and the watchdog."""
