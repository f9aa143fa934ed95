"""The user's own function: their code run on their tensors, row by row where that is possible."""
