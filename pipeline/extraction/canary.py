"""A canary: features of two fixed pictures, kept with a fingerprint, that new conditions must give.

Rows of one fingerprint may come from several engines, versions and machines, and are mixed. So an
engine whose name, libraries or machine are new to a fingerprint computes the same pictures first.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.store.atomic import write_bytes
from pipeline.store.shards import RowStore
from pipeline.trunks.spec import FeatureKey, installed

if TYPE_CHECKING:
    import torch

    from pipeline.trunks.engines.engine import Engine

#: Largest relative difference (L2) within a class. Measured on these pictures, PyTorch against
#: OpenVINO: see docs/performance.md.
BOUNDS = {"fp32": 1e-3, "tf32": 1e-2, "fp16": 2e-2, "bf16": 5e-2}
_PICTURES = 2
_MOST = 2048  #: values that are kept of a picture


def pictures(size: int) -> torch.Tensor:
    """Return waves with a little noise, uint8 [2, 3, size, size], the same everywhere."""
    import torch

    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(k * x + 5 * y) for k in (7, 11, 17, 23, 31, 43)]
    noise = np.random.RandomState(0).randint(-20, 21, (6, size, size))  # a stream that is frozen
    whole = (128 + 100 * np.stack(waves) + noise).clip(0, 255).round().astype(np.uint8)
    return torch.from_numpy(whole.reshape(_PICTURES, 3, size, size))


def check(
    engine: Engine, keys: list[FeatureKey], stores: list[RowStore], parts: list[slice]
) -> None:
    """Compare what an engine computes with the canaries of fingerprints, where it is new to them.

    Args:
        engine: that is to compute rows.
        keys: what they depend on, of one trunk and precision.
        stores: of each key.
        parts: which columns of the engine's rows are each key's.

    Raises:
        PipelineError: it computes in another precision, or differs by more than the class allows.
    """
    key = keys[0]
    if not engine.precision:
        return
    if engine.precision != key.precision:
        raise PipelineError(
            f"{engine.name} computes in {engine.precision} on this machine, where {key.precision} "
            f"is asked for: give --precision {engine.precision}, or --engine torch."
        )
    witness = _witness(engine.name)
    new = [(store, part) for store, part in zip(stores, parts, strict=True)
           if witness not in _read(store).get("seen", [])]  # fmt: skip
    if not new:
        return
    (whole,) = engine.run([pictures(key.preprocess.crop)])
    for store, part in new:
        flat = whole[:_PICTURES, part].reshape(_PICTURES, -1).astype(np.float32)
        values = flat[:, :: -(-flat.shape[1] // _MOST)]
        kept = _read(store)
        if not np.isfinite(values).all():
            continue  # the rows themselves tell, with more to go by
        if kept:
            first = np.array(kept["values"], np.float32)
            off = _relative(values, first) if first.shape == values.shape else np.inf
            if not off <= BOUNDS[key.precision]:
                raise PipelineError(
                    f"{engine.name} here computes other {key.precision} features of {key.trunk} "
                    f"than those in the cache: {off:.2g} apart on two fixed pictures, where "
                    f"{BOUNDS[key.precision]:g} is allowed. Those were computed by "
                    f"{kept['seen'][0]}; this is {witness}. Give another --engine, --precision or "
                    "--cache."
                )
        else:
            kept = {"values": [[float(v) for v in row] for row in values], "seen": []}
        kept["seen"].append(witness)
        store.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(_place(store), json.dumps(kept).encode(), what="the canary")


def _relative(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got - want) / max(float(np.linalg.norm(want)), 1e-12))


def _place(store: RowStore) -> Path:
    return store.folder / "canary.json"


def _read(store: RowStore) -> dict[str, Any]:
    """Return the values and who was seen to give them; empty where there are none."""
    try:
        kept: dict[str, Any] = json.loads(_place(store).read_text())
        return kept if kept.keys() == {"values", "seen"} and kept["seen"] else {}
    except (OSError, ValueError, AttributeError):
        return {}  # lost or damaged: the next engine leaves another


def _witness(engine: str) -> str:
    """Return what may change the numbers: engine, its libraries, the machine's processor."""
    found = installed()
    names = [f"{name} {found[name]}" for name in ("torch", "timm") if found[name]]
    if engine.startswith("openvino"):
        try:
            names.append(f"openvino {version('openvino')}")
        except PackageNotFoundError:
            pass
    return ", ".join([engine, *names, _processor(engine)])


def _processor(engine: str) -> str:
    if engine.startswith("torch-cuda"):
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    # the instructions, which decide the kernels, rather than the model alone
    words = {line.partition(":")[0].strip(): line.partition(":")[2] for line in lines}
    flags = set(words.get("flags", words.get("Features", "")).split())
    ours = sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16", "sve"})
    return " ".join([words.get("model name", platform.machine()).strip(), *ours])
