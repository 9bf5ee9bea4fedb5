"""From a library's network to stages that can be cut."""
