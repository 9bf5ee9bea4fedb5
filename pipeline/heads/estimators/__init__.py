"""Estimators that scikit-learn lacks, and what stands before each of them."""
