"""`ExtractOptions`: what `extract` is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import clusters
from pipeline.cores import usable_cores
from pipeline.errors import nearest
from pipeline.images.names import safe
from pipeline.images.views import AUGMENTED, CLASSIC, numbers
from pipeline.options import Options, option, shared
from pipeline.trunks import permitted, spec

DEFAULT_TRUNK = "efficientnet_lite0"


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(Options):
    """The options of `extract`. Equal options over equal files give equal tables.

    Args:
        trunk: Pretrained network: built-in, torchvision's name, timm/NAME, or module:function,
            which makes one's own.
        weights: default, a name of the library's, random, or a file of torch.save or safetensors;
            FILE::KEY for one of several networks in it.
        keys: Match a file's tensors by name, or by order where all shapes agree.
        layer: Pool the end of this stage, or of several, side by side. [default: what enters
            the last Linear]
        pool: How to pool the layer. [default: as the trunk does]
        views: Keep V augmented views of each training image besides, for `fit-head --views`.
        augment: What these views look like.
        image_size: Side of the input. [default: the weights' own]
        precision: auto: what the cache already holds, else what the hardware is fast in.
        dtype: How rows are kept; float16 takes half of the space and rounds them by 0.02%.
        engine: What runs the trunk. auto: OpenVINO on a CPU where it is installed, else torch;
            compiled: torch.compile.
        batch_size: Images at once. [default: 32 on a CPU, 128 or more on CUDA, 64 on MPS]
        workers: Decoding threads. [default: the cores that the process may use]
        processes: Processes that compute, each with its share of the cores, or a GPU of its own.
            [default: one, or one for each GPU]
        on: dask: processes of a Dask cluster on this machine; tcp://HOST:PORT: those of a running
            Dask scheduler, which see images and cache at the same places.
        name: The table's name. [default: the data's]
        val_fraction: Share of val where the data have no splits. [default: 0.15]
        test_fraction: Share of test where the data have no splits. [default: 0.15]
        seed: Of the automatic splits.
        wait: Fail where another process computes the same features, in place of waiting for it.
        max_bad: Fail when more images than this cannot be decoded. [default: no limit]
        rehash: Read every file again, whatever its times say, and try bad images again.
    """

    trunk: str = option(DEFAULT_TRUNK, metavar="NAME")
    weights: str = option("default", metavar="NAME|FILE[::KEY]")
    keys: str = option("name", choices=("name", "order"))
    layer: str | None = option(None, metavar="stem|layer1|…|layer4|neck[,…]")
    pool: str | None = option(None, choices=spec.POOLS)
    views: int = option(0, metavar="V", least=0)
    augment: str = option(CLASSIC, choices=AUGMENTED)
    image_size: int | None = option(None, metavar="PX", least=1)
    precision: str = shared("precision")
    dtype: str = option("float32", choices=("float32", "float16"))
    device: str = shared("device")
    engine: str = shared("engine")
    batch_size: int | None = shared("batch_size")
    workers: int | None = shared("workers")
    processes: int | None = option(None, metavar="N", least=1, changes=False)
    on: str | None = option(None, metavar=clusters.METAVAR, changes=False)
    name: str | None = option(None)
    val_fraction: float | None = option(None, metavar="F", within="[0, 1)")
    test_fraction: float | None = option(None, metavar="F", within="[0, 1)")
    seed: int = option(0, least=0)
    wait: bool = option(True, changes=False, flags=("--no-wait",))
    max_bad: int | None = option(None, metavar="N", least=0, changes=False)
    rehash: bool = option(False, changes=False)

    @property
    def cores(self) -> int:
        """Return how many cores each process takes, of those that this one may use."""
        return max(1, usable_cores() // (self.processes or 1))

    @property
    def view_numbers(self) -> tuple[int, ...]:
        """Return the numbers of the views of each training image."""
        return numbers(self.augment, self.views)

    def conflicts(self) -> list[str]:
        """Return a sentence for each layer that there is not, and for a name that no file can have.

        Whether the trunk has the layer is not known here.
        """
        found = []
        for name in [] if self.layer is None else spec.layer_names(self.layer):
            if name not in spec.LAYERS:
                hint = nearest(name, spec.LAYERS)
                found.append(f"--layer '{name}' is not one of {', '.join(spec.LAYERS)}.{hint}")
        if self.name is not None and self.name != safe(self.name):
            better = safe(self.name)
            found.append(f"--name '{self.name}' cannot be part of a file's name; try '{better}'.")
        found += clusters.fault(self.on)
        if self.on not in (None, "dask") and self.processes is not None:
            found.append(f"--processes is for this machine; {self.on} has workers of its own.")
        if self.views > 1 and self.augment == "mirror":
            found.append(
                f"--views {self.views}: an image has one mirror image (--augment mirror); give 1."
            )
        several = self.on is not None or (self.processes or 1) > 1
        if several and self.trunk.startswith(permitted.PREFIX):
            found.append(
                "A network given as an object lives in this process alone: leave --processes and "
                "--on out, or name a function that makes it, as module:function."
            )
        return found
