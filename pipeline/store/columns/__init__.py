"""The large columns of a table: rows of numbers, in its own file or in parts beside it."""
