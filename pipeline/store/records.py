"""What a table says of where its features came from, as types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.store.typed_json import Record

#: Of a table's file; one of another schema is to be made again.
TABLE_SCHEMA = 5


@dataclass(frozen=True)
class FeatureSource(Record):
    """What computes features: enough to load the trunk again and to prepare images for it.

    Attributes:
        trunk: its name.
        weights: the name of the weights that were loaded.
        weights_digest: sha256 of their tensors.
        weights_asked: what to ask for to load them again: a name, `random` or an absolute path.
        keys: how a weights file was matched: by `name` or by `order`.
        layer: where features are taken.
        pool: how they are pooled.
        precision: of the arithmetic: `fp32`, `tf32`, `bf16` or `fp16`.
        decoder: of plain JPEGs: `libjpeg-turbo`, or `nvjpeg` on a GPU.
        dtype: of the rows as they are kept: `float32` or `float16`.
        preprocess: of `pipeline.images.preprocess.Preprocess`.
    """

    trunk: str
    weights: str
    weights_digest: str
    weights_asked: str
    keys: str
    layer: str
    pool: str
    precision: str
    decoder: str
    dtype: str
    preprocess: dict[str, Any]


@dataclass(frozen=True)
class PassCost(Record):
    """What computing the rows of a table took: images and views that were computed, and seconds."""

    computed: int
    seconds: float


@dataclass(frozen=True)
class Provenance(FeatureSource):
    """Where a table came from. See also `FeatureSource`.

    Attributes:
        fingerprint: sha256 over everything that changes the stored numbers.
        key: of which it is made, `pipeline.trunks.spec.FeatureKey` as JSON.
        data: name of the data set.
        root: folder that paths are relative to.
        seed: of automatic splits.
        command: the command line that makes the table again.
        cache: the cache's folder.
        augment: policy of its views, of `pipeline.images.views.POLICIES`; empty without views.
        engine: what computed the rows; several with `+`.
        cost: of the run that made the table.
        versions: package to its version.
        created: when, UTC.
        schema: of the table's file.
    """

    fingerprint: str
    key: dict[str, Any]
    data: str
    root: str
    seed: int
    command: str
    cache: str
    augment: str
    engine: str
    cost: PassCost | None
    versions: dict[str, str]
    created: str
    schema: int = TABLE_SCHEMA
