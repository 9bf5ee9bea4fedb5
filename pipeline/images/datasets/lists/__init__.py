"""Lists of images as people write them: columns, encodings, and where the files are."""
