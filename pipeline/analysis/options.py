"""What `audit`, `advise` and `compare` are asked for, and the contenders that `compare` names."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from itertools import product
from pathlib import Path

from pipeline.errors import UsageError, nearest
from pipeline.extraction.options import DEFAULT_TRUNK, ExtractOptions
from pipeline.heads.registry import parse_names
from pipeline.options import Options, option, output_option, shared
from pipeline.trunks import spec
from pipeline.trunks.addresses import FOLDER, address_of


@dataclass(frozen=True, kw_only=True)
class AuditOptions(Options):
    """The options of `audit`.

    Args:
        compare_all: Look for near-copies among more than 20,000 images too.
        output: The list to write. [default: beside the table]
    """

    compare_all: bool = option(False)
    output: str | None = output_option("FILE.csv")


@dataclass(frozen=True, kw_only=True)
class AdviseOptions(Options):
    """The options of `advise`. Equal options on one table and one cache give the same advice,
    but for what takes too long to be tried.

    Args:
        sample: Training images that random weights are compared on; 0 leaves it out.
        trial: Training images that fine-tuning is tried on, where it takes a minute at most; 0
            leaves it out.
        data: Where the images of the table lie now.
        workers: Decoding threads. [default: the cores that the process may use]
        seed: Of folds, samples and permutations.
        output: Write the learning curve there, a PNG.
    """

    sample: int = option(1000, metavar="N", least=0)
    trial: int = option(400, metavar="N", least=0)
    data: str | None = shared("data")
    device: str = shared("device")
    workers: int | None = shared("workers")
    seed: int = option(0, least=0)
    output: str | None = output_option("FILE")


#: The layer of `--layers` that is the trunk's own feature.
OWN = "own"


@dataclass(frozen=True)
class Contender:
    """A trunk with its weights, a layer and a pooling.

    Args:
        trunk: name.
        weights: as `ExtractOptions` has it.
        layer: as `ExtractOptions` has it; None for the trunk's own feature.
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


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options):
    """The options of `compare`. Equal options over equal files give equal accuracies.

    Args:
        trunks: Trunks, each perhaps with its weights: resnet18:random, resnet50:weights.pth; one's
            own as module:function.
        layers: Layers to take features from; A+B for two side by side. [default: own, what
            enters the last Linear]
        pools: How to pool these layers.
        clf: Heads to fit; the best by selection counts.
        folds: Folds of the training images that choose.
        image_size: Side of the input. [default: the weights' own]
        batch_size: Images at once. [default: 32 on a CPU, 128 on CUDA, 64 on MPS]
        workers: Decoding threads. [default: the cores that the process may use]
        jobs: Processes. [default: all cores]
        seed: Of automatic splits and folds.
        output: The picture. [default: comparisons/NAME.png in the cache]
    """

    trunks: str = option(DEFAULT_TRUNK, metavar="NAME[:WEIGHTS],…")
    layers: str | None = option(None, metavar="own|stem|layer1|…|neck,…")
    pools: str | None = option(None, metavar="avg|max|gem|flat,…")
    clf: str = option("linear", metavar="NAME[,NAME…]|all")
    folds: int = option(5, metavar="N", least=2)
    image_size: int | None = option(None, metavar="PX", least=1)
    precision: str = shared("precision")
    device: str = shared("device")
    engine: str = shared("engine")
    batch_size: int | None = shared("batch_size")
    workers: int | None = shared("workers")
    jobs: int | None = shared("jobs")
    seed: int = option(0, least=0)
    output: str | None = output_option("FILE.png")

    def conflicts(self) -> list[str]:
        """Return a sentence for each name that cannot be one."""
        layers = [layer for layer in _words(self.layers) if layer != OWN]
        names = [name for layer in layers for name in spec.layer_names(layer)]
        asked: list[tuple[str, str, tuple[str, ...]]] = []
        asked += [("--layers", name, (OWN, *spec.LAYERS)) for name in names]
        asked += [("--pools", pool, spec.POOLS) for pool in _words(self.pools)]
        faults = [
            f"{flag} '{name}' is not one of {', '.join(known)}.{nearest(name, known)}"
            for flag, name, known in asked
            if name not in known
        ]
        trunks = [_trunk(word) for word in _words(self.trunks)]
        if not trunks or not all(all(pair) for pair in trunks):
            faults.append(
                f"--trunks '{self.trunks}': give names with commas, such as {DEFAULT_TRUNK}, or "
                "NAME:WEIGHTS, such as resnet18:random. `pipeline trunks` lists the names."
            )
        try:
            parse_names(self.clf)
        except UsageError as error:
            faults.append(str(error))
        if self.output is not None and Path(self.output).suffix.lower() != ".png":
            faults.append(f"--output '{self.output}' does not end in .png: the picture is a PNG.")
        return list(dict.fromkeys(faults))

    def contenders(self) -> list[Contender]:
        """Return every trunk with every layer and pooling, each once."""
        own: list[str | None] = [None]
        asked = product(_words(self.trunks), _words(self.layers) or own, _words(self.pools) or own)
        every = (Contender(*_trunk(word), *_meant(layer, pool)) for word, layer, pool in asked)
        return list(dict.fromkeys(every))

    def extraction(self, contender: Contender) -> ExtractOptions:
        """Return the options of a contender's table."""
        return ExtractOptions.of({**vars(self), **vars(contender)})


def _words(text: str | None) -> list[str]:
    return [] if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _trunk(word: str) -> tuple[str, str]:
    """Return the name and the weights of NAME[:WEIGHTS]; a name may hold a colon itself."""
    address = address_of(word)
    if address is not None and address.kind == FOLDER:
        return word, "default"
    name, colon, weights = word.partition(":")
    function, more, further = weights.partition(":")
    if address is not None or _is_function(name, function):
        name, colon, weights = f"{name}:{function}", more, further
    return name, weights if colon else "default"


def _is_function(name: str, function: str) -> bool:
    """Return whether `name:function` is one's own network, and no library's with its weights."""
    words = [*name.split("."), function]
    if function in ("default", "random") or not all(word.isidentifier() for word in words):
        return False
    if PathFinder.find_spec(words[0], [str(Path.cwd()), *sys.path]) is None:
        return False
    from pipeline.trunks import registry

    return name not in registry.names()


def _meant(layer: str | None, pool: str | None) -> tuple[str | None, str | None]:
    """Return layer and pooling of a contender; what has a pooling of its own takes no other."""
    if layer is None or layer == OWN:
        return None, pool if layer is None else None
    names = sorted(set(spec.layer_names(layer)), key=spec.LAYERS.index)
    return "+".join(names), None if names == ["neck"] else pool
