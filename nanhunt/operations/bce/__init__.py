"""Binary cross entropy: one probability a value, with 1 - sigmoid(x) as the number that is lost first."""
