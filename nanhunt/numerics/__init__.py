"""The mathematics: knows tensors; knows no files, options or reports."""
