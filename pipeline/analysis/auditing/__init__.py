"""Faults of a data set, found in its cached features."""
