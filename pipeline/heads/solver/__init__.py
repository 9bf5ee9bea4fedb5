"""Multinomial logistic regression: every penalty and fold to its optimum, by batched L-BFGS."""
