"""The report: one HTML page of a table, its heads and its models."""
