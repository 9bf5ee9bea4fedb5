"""`CompareRecipe`: what `compare` is asked for, and the contenders that it names."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UsageError, nearest
from pipeline.extraction.options import DEFAULT_TRUNK, Recipe
from pipeline.heads.registry import parse_names
from pipeline.options import faults
from pipeline.trunks import spec

#: The layer of `--layers` that is the trunk's own feature.
OWN = "own"
_LEAST = {"image_size": 1, "batch_size": 1, "workers": 1, "folds": 2}


@dataclass(frozen=True)
class Contender:
    """A trunk with its weights, a layer and a pooling.

    Args:
        trunk: name.
        weights: as `Recipe` has it.
        layer: as `Recipe` has it; None for the trunk's own feature.
        pool: likewise.
    """

    trunk: str
    weights: str = "default"
    layer: str | None = None
    pool: str | None = None

    @property
    def title(self) -> str:
        """Return what people call it: `resnet18:random layer3 max`."""
        trunk = self.trunk if self.weights == "default" else f"{self.trunk}:{self.weights}"
        layer = OWN if self.layer is None and self.pool is None else self.layer or "layer4"
        return " ".join([trunk, layer, *([self.pool] if self.pool else [])])


@dataclass(frozen=True)
class CompareRecipe:
    """The options of `compare`. Equal recipes over equal files give equal accuracies.

    Args:
        trunks: names with commas, each perhaps with its weights: `resnet18:random`.
        layers: with commas; several side by side joined by `+`; `own` for the trunk's own
            feature. None for that alone.
        pools: with commas; None for each layer's own.
        clf: heads, as `fit-head` has it; the best by selection counts.
        folds: of the cross-validation, at least 2.
        image_size: side of the input in pixels; None for the weights' own.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        engine: `auto`, `torch` or `openvino`.
        batch_size: images at once; None for the device's default.
        workers: decoding threads; None for the cores that the process may use.
        jobs: processes that fit heads; None leaves it to joblib.
        seed: of automatic splits, folds and estimators.
    """

    trunks: str = DEFAULT_TRUNK
    layers: str | None = None
    pools: str | None = None
    clf: str = "linear"
    folds: int = 5
    image_size: int | None = None
    precision: str = "auto"
    device: str = "auto"
    engine: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    jobs: int | None = None
    seed: int = 0

    def contenders(self) -> list[Contender]:
        """Return every trunk with every layer and pooling, each once; refuse what cannot be.

        Raises:
            UsageError: all faults in one message.
        """
        found = faults(self, least=_LEAST, allowed={})
        layers: list[str | None] = [*_words(self.layers)] or [None]
        pools: list[str | None] = [*_words(self.pools)] or [None]
        for layer in layers:
            for name in spec.layer_names(layer) if layer and layer != OWN else []:
                if name not in spec.LAYERS:
                    known = [OWN, *spec.LAYERS]
                    found.append(
                        f"--layers '{name}' is not one of {', '.join(known)}.{nearest(name, known)}"
                    )
        for pool in pools:
            if pool and pool not in spec.POOLS:
                hint = nearest(pool, spec.POOLS)
                found.append(f"--pools '{pool}' is not one of {', '.join(spec.POOLS)}.{hint}")
        trunks = [_trunk(word) for word in _words(self.trunks)]
        if not trunks or not all(all(pair) for pair in trunks):
            found.append(
                f"--trunks '{self.trunks}': give names with commas, such as {DEFAULT_TRUNK}, or "
                "NAME:WEIGHTS, such as resnet18:random. `pipeline trunks` lists the names."
            )
        for check in (lambda: parse_names(self.clf), self.recipe(Contender(DEFAULT_TRUNK)).check):
            try:
                check()
            except UsageError as error:
                found.append(str(error))
        if found:
            raise UsageError(" ".join(dict.fromkeys(found)))
        return list(
            dict.fromkeys(
                Contender(trunk, weights, *_meant(layer, pool))
                for trunk, weights in trunks
                for layer in layers
                for pool in pools
            )
        )

    def recipe(self, contender: Contender) -> Recipe:
        """Return the recipe of a contender's table."""
        shared = ("image_size", "precision", "device", "engine", "batch_size", "workers", "seed")
        return Recipe(**vars(contender), **{name: getattr(self, name) for name in shared})


def _words(text: str | None) -> list[str]:
    return [] if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _trunk(word: str) -> tuple[str, str]:
    name, colon, weights = word.partition(":")
    return name, weights if colon else "default"


def _meant(layer: str | None, pool: str | None) -> tuple[str | None, str | None]:
    """Return layer and pooling of a recipe; what has a pooling of its own takes no other."""
    if layer is None or layer == OWN:
        return None, pool if layer is None else None
    names = sorted(set(spec.layer_names(layer)), key=spec.LAYERS.index)
    return "+".join(names), None if names == ["neck"] else pool
