"""Logistic regression for all penalties and folds as one batched problem."""
