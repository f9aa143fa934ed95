"""Scaled dot-product attention: softmax(q k^T / sqrt(d) + mask) v, a row of it for every query."""
