"""The recipes that fine-tuning chooses among, from gentle to bold.

Where the constants come from, and what was measured, stands in docs/finetune.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How to train, but for what a person or the data say.

    Attributes:
        optimizer: `adamw`, or `sgd` with momentum 0.9.
        lr: largest learning rate of the last unfrozen stage, for batches of 32.
        head_lr_factor: what the head's is multiplied by.
        layer_decay: what each stage's is multiplied by, once for every unfrozen stage behind it.
        start: the last layer starts from the fitted `head`, or `random`.
        weight_decay: of all parameters of two dimensions and more.
        label_smoothing: in [0, 1).
        mixup: α of the Beta distribution that says how much of another image, and of its label, is
            mixed in (Zhang et al. 2018; at a boundary within the network Verma et al. 2019); 0:
            none.
        train_bn: BatchNorms that learn follow the statistics of their batches.
    """

    optimizer: str = "adamw"
    lr: float = 1e-3
    head_lr_factor: float = 3.0
    layer_decay: float = 1.0
    start: str = "head"
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    mixup: float = 0.0
    train_bn: bool = False


#: Name → recipe, from gentle to bold: where scores are a tie, the first wins.
RECIPES: Mapping[str, Recipe] = {
    "gentle": Recipe("sgd", lr=3e-3, head_lr_factor=1.0, weight_decay=0.0),
    "steady": Recipe(lr=3e-4),
    "layerwise": Recipe(layer_decay=0.4),
    "bold": Recipe(),
    "mixed": Recipe(mixup=0.4, train_bn=True),
    "fresh": Recipe(start="random"),
}
#: Which are tried first where the budget does not allow all.
FIRST = ("bold", "mixed", "steady", "fresh", "gentle", "layerwise")
#: What single options change.
USUAL = "steady"
