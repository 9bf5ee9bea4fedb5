"""`Preprocess`: how decoded pixels become a trunk's input. It belongs to the weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.compiler import import_library

if TYPE_CHECKING:
    import torch

#: Part of every fingerprint: raise it when `decode.decode` gives other pixels.
DECODE_POLICY = "5"
#: Part of every fingerprint: raise it when `Preprocess.apply`, `crops.view` or a policy of
#: `pipeline.images.views` gives other pixels.
VIEW_POLICY = "centre-crop-1, crop+mirror-1, crop-1, shift+mirror-1, shift-1, mirror-1"
#: A picture longer than this many times its short side is cut to its middle before resizing,
#: so that a 1×100,000 strip does not become 256×25,600,000 pixels.
MAX_ASPECT = 8


@dataclass(frozen=True)
class Preprocess:
    """Resize, centre-crop and normalise, as the weights were trained with.

    Two are equal when they give every image the same numbers.

    Args:
        resize: short side after resizing, in pixels.
        crop: side of the square centre crop, in pixels: the trunk's input size.
        interpolation: `bilinear` or `bicubic`, always antialiased.
        mean: per channel (R, G, B), on the scale where white is 1.
        std: per channel (R, G, B), on the scale where white is 1.
        squash: resize to resize×resize without keeping the aspect ratio, as timm does.
    """

    resize: int
    crop: int
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    squash: bool = False

    def with_size(self, size: int) -> Preprocess:
        """Return the same preprocessing for an input of size×size, with the same crop ratio."""
        return replace(self, crop=size, resize=max(size, int(size * self.resize / self.crop)))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocess:
        """Return the inverse of `to_json`."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Return the evaluation view of an image, not yet normalised.

        Args:
            image: uint8 [3, H, W], RGB.

        Returns:
            uint8 [3, crop, crop], resized antialiased on uint8 and centre-cropped as
            torchvision's `Resize` and `CenterCrop` do.
        """
        v2 = import_library("torchvision.transforms.v2")
        way = v2.InterpolationMode(self.interpolation)
        resize = partial(v2.functional.resize, interpolation=way, antialias=True)
        if self.squash:
            return _middle(resize(image, [self.resize, self.resize]), self.crop, self.crop)
        height, width = image.shape[-2:]
        longest = MAX_ASPECT * min(height, width)
        if max(height, width) > longest:
            image = _middle(image, min(height, longest), min(width, longest))
        return _middle(resize(image, [self.resize]), self.crop, self.crop)


def _middle(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return what torchvision's `center_crop` does, in less time where nothing is to be padded."""
    tall, wide = image.shape[-2:]
    if height > tall or width > wide:
        functional = import_library("torchvision.transforms.v2.functional")
        padded: torch.Tensor = functional.center_crop(image, [height, width])
        return padded
    top, left = round((tall - height) / 2), round((wide - width) / 2)
    return image[..., top : top + height, left : left + width]
