"""Two tensors that should be the same: how they are measured against each other, and what is said of it."""
