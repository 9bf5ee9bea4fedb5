"""From features to a head: what maps a feature to class scores. Needs no images and no trunk."""
