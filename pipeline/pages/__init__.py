"""The report: from tables, heads and models to one HTML page. Knows nothing of commands."""
