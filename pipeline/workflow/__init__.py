"""The stages in one run, and what they cost."""
