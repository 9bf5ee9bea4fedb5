"""From an image file's bytes to crops, or a reason why not."""
