"""Which part of a trunk to train, from measurements."""
