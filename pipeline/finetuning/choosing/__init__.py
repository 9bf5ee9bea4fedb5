"""What suits the data: which augmentation, which recipe, and whether the model beats its head."""
