"""Stage one: from images to cached features and a table of them."""
