"""Find the rows, the format and the cause when a softmax or cross entropy turns NaN."""

__version__ = "0.1.0"
