"""From inputs to one report."""
