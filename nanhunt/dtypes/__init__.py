"""Each float format: its limits, its bits, its conversion."""
