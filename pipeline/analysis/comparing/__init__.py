"""Several trunks on the same images: how good, how fast, how large."""
