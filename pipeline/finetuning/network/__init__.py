"""The network that learns: what of it is unfrozen, and its hand-over from the head."""
