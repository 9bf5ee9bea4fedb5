"""Which images fit and which choose, and what candidates score on them."""
