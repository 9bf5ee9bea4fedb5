"""What a data set is: a folder, a CSV or TSV file, a built-in set; its splits."""
