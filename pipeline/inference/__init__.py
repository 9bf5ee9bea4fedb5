"""From images to classes: predict, evaluate, compare, export."""
