"""From a path to pixels: what is in a data set, which bytes it holds, what they decode to."""
