"""`FinetuneOptions`: what `finetune` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from pipeline.finetuning.choosing.recipes import RECIPES, USUAL, Recipe
from pipeline.finetuning.settings import SCHEDULES
from pipeline.images.views import POLICIES, numbers
from pipeline.options import Options, flag, option, shared

OPTIMIZERS = ("adamw", "sgd")
#: Kept random views of each training image.
VIEWS = 4
#: Epochs over which weights are averaged, and the share of the way to these that is scored too,
#: where one recipe is asked for.
EMA, BLEND = 1.0, 0.5
EPOCHS = 10
#: Usual learning rates of SGD, and from scratch, where all of it is new.
SGD_LR = 1e-2
SCRATCH_LR = {"adamw": 1e-3, "sgd": 5e-2}


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(Options):
    """The options of `finetune`. Equal options on one head take the same steps.

    Args:
        unfreeze: What learns: stages, neck, native modules, the last N stages; auto: as many as
            serve, of the last, half and all.
        recipe: How to train; auto tries several and keeps what wins. Any option of one recipe
            (from --epochs to --start) asks for one.
        budget: Minutes that trying recipes may take. [default: thirty times what extracting these
            images takes, 5 at least]
        epochs: At most. [default: 10]
        batch_size: Training images a step.
        lr: Largest learning rate of the trunk. [default: the recipe's; sgd 0.01; from scratch
            1e-3, 0.05]
        head_lr_factor: The head learns so much faster. [default: the recipe's; from scratch 1]
        layer_decay: A stage learns so much slower than the one behind it. [default: the recipe's]
        optimizer: [default: the recipe's]
        weight_decay: [default: the recipe's]
        schedule: Of the learning rate, after a warm-up over a tenth of the steps.
            [default: cosine]
        label_smoothing: [default: 0.1]
        mixup: Mix each image with another, by a share drawn from Beta(A, A); 0: do not.
            [default: the recipe's]
        views: Views kept of each training image beside the evaluation view. [default: 4; with
            --live new ones in every epoch]
        augment: What views look like; auto: the boldest that does not harm a head.
        live: Keep no activations: whole trunk, every epoch.
        train_bn: Unfrozen BatchNorms follow their batches.
        ema: Score and keep the moving average of the weights over E epochs; 0: the weights.
            [default: 1]
        blend: Score weights at this share of the way from the head to those too; 0: do not.
            [default: 0.5]
        patience: End after N epochs without a better.
        select_on: Whose log-loss chooses; auto: val where there is a test split too.
        start: What the last layer starts from. [default: head]
        from_scratch: Everything from random weights, to compare.
        data: Where the images lie now.
        workers: Decoding threads. [default: all cores]
        seed: Of order, views and dropout.
        resume: Go on with an unfinished run of the same.
        standalone: Keep the frozen part in the model's file too.
    """

    unfreeze: str = option("layer4", metavar="NAME[,NAME…]|N|all|none|auto")
    recipe: str = option("auto", choices=("auto", *RECIPES))
    budget: float | None = option(None, metavar="MINUTES", within="(0, inf)")
    epochs: int | None = option(None, metavar="N", least=1)
    batch_size: int = option(32, metavar="N", least=1)
    lr: float | None = option(None, metavar="LR", within="(0, inf)")
    head_lr_factor: float | None = option(None, metavar="X", within="(0, inf)")
    layer_decay: float | None = option(None, metavar="X", within="(0, 1]")
    optimizer: str | None = option(None, choices=OPTIMIZERS)
    weight_decay: float | None = option(None, metavar="W", least=0)
    schedule: str | None = option(None, choices=SCHEDULES)
    label_smoothing: float | None = option(None, metavar="S", within="[0, 1)")
    mixup: float | None = option(None, metavar="A", least=0)
    views: int | None = option(None, metavar="K", least=1)
    augment: str = option("auto", choices=("auto", *POLICIES))
    live: bool = option(False)
    train_bn: bool = option(False)
    ema: float | None = option(None, metavar="E", least=0)
    blend: float | None = option(None, metavar="S", within="[0, 1)")
    patience: int | None = option(None, metavar="N", least=1)
    select_on: str = option("auto", choices=("auto", "val", "train-part"))
    start: str | None = option(None, choices=("head", "random"))
    from_scratch: bool = option(False)
    data: str | None = shared("data")
    precision: str = shared("precision")
    device: str = shared("device")
    workers: int | None = shared("workers")
    seed: int = option(0, least=0)
    resume: bool | None = option(False, changes=False)
    standalone: bool = option(False)

    def conflicts(self) -> list[str]:
        """Return a sentence for each value that does not fit the others."""
        faults = []
        if self.views is not None and self.augment == "none":
            faults.append("--views are augmented, and --augment none wants none; drop one.")
        if self.views is not None and self.views > 1 and self.augment == "mirror":
            faults.append(
                f"--views {self.views}: an image has one mirror image (--augment mirror); drop one."
            )
        if self.from_scratch and self.unfreeze not in ("layer4", "all"):
            faults.append("--from-scratch trains everything; drop --unfreeze.")
        if self.unfreeze == "auto" and self.asked:
            faults.append(
                f"--unfreeze auto tries recipes, and {self.asked[0]} asks for one; name the stages."
            )
        if self.budget is not None and self.asked:
            one = self.asked[0]
            faults.append(f"--budget is for trying recipes, and {one} asks for one; drop one.")
        return faults

    @property
    def asked(self) -> list[str]:
        """Return the options that ask for one recipe, as the command line writes them."""
        plain = FinetuneOptions()
        return [flag(name) for name in SINGLE if getattr(self, name) != getattr(plain, name)]

    @property
    def single(self) -> bool:
        """Tell whether one recipe is asked for: then there is nothing to choose but the epoch."""
        return bool(self.asked) or self.unfreeze == "none"

    @property
    def chosen(self) -> Recipe:
        """Return the recipe that is asked for, single options put in."""
        recipe = RECIPES[USUAL if self.recipe == "auto" else self.recipe]
        if self.from_scratch:
            recipe = replace(recipe, head_lr_factor=1.0, layer_decay=1.0, start="random")
        optimizer = self.optimizer or recipe.optimizer
        if self.from_scratch:
            recipe = replace(recipe, lr=SCRATCH_LR[optimizer])
        elif optimizer != recipe.optimizer:
            recipe = replace(recipe, lr=SGD_LR if optimizer == "sgd" else RECIPES[USUAL].lr)
        given = {one.name: getattr(self, one.name) for one in fields(Recipe)}
        given["train_bn"] = self.train_bn or self.from_scratch or recipe.train_bn
        return replace(
            recipe, **{name: value for name, value in given.items() if value is not None}
        )

    @property
    def gentler_rate(self) -> float:
        """Return what to try where training diverged: a tenth, or the usual rate if far below."""
        usual = replace(self, lr=None).chosen.lr
        return self.chosen.lr / 10 if self.chosen.lr <= 100 * usual else usual

    def numbers(self, policy: str) -> tuple[int, ...]:
        """Return the numbers of the views of a policy that epochs draw from beside view 0."""
        return numbers(policy, VIEWS if self.views is None else self.views)


#: Options that ask for one recipe.
SINGLE = (
    "recipe", "epochs", "lr", "head_lr_factor", "layer_decay", "optimizer", "weight_decay",
    "schedule", "label_smoothing", "mixup", "train_bn", "ema", "blend", "patience", "start",
    "from_scratch",
)  # fmt: skip
