"""Partial fine-tuning: what learns, on which activations, in which steps."""
