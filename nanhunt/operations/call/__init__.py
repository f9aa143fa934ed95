"""One call of a step, as ``nanhunt run`` has captured it: run again on the tensors that it was given."""
