"""Where a network and its weights come from."""
