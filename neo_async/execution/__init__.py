"""An order from its checked request to its last fill."""
