"""Softmax and cross entropy over rows of classes."""
