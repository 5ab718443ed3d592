"""The state file of the simulator."""
