"""One file a format: bytes become named tensors that are read when asked for."""
