"""Weights, optimizer state and whatever else holds numbers: is it finite, and what would a cast lose."""
