"""What people compute, how it fails, and what mends it: one folder an operation."""
