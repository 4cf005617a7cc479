"""Where call records come from: the intake contract, and one folder per vendor."""
