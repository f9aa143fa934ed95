"""Two dumps that should be the same: paired by name, measured value by value, and what is said of it."""
