"""Where a network and its weights come from."""

from pipeline.libraries import without_compiler

without_compiler("torchvision", "timm")
