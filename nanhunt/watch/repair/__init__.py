"""Repairs: the way a good engineer would mend the culprit, proven by repeating the step, printed as a patch.

A repair is one text. Its holes filled with the names of taped tensors, it is run in the place of the taped call; filled
with the user's own expressions, it is the edit of the user's file. ``mend`` tries those that fit, best first.
"""
