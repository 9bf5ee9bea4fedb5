"""`TrunkFeatures`: a trunk as a scikit-learn transformer, on the same cache as `extract`."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from pipeline.errors import BadImage, PipelineError
from pipeline.extraction.compute import fill
from pipeline.extraction.options import DEFAULT_TRUNK, ExtractOptions
from pipeline.extraction.plan import feature_key, find_rows
from pipeline.images.datasets.given import images_in
from pipeline.images.decoding.formats import way
from pipeline.images.decoding.pictures import as_source
from pipeline.images.names import shown
from pipeline.images.remarks import Remarks
from pipeline.progress import Silent
from pipeline.store.atomic import make_folder
from pipeline.store.cache import Cache
from pipeline.store.shards import Key
from pipeline.trunks import permitted, spec

#: Threads of a grid search take turns: loading a trunk seeds torch, and cutting it into stages
#: changes what calling a module does (torch.fx), for every thread of the process.
_ALONE = RLock()


class TrunkFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """From paths or pictures to features, each computed once.

    Rows are kept in the cache under the content of the images, so that the folds of a grid search
    and later runs compute nothing again; no table names them, so `pipeline cache gc` removes them.
    Processes of one search (`n_jobs=2`) wait for the rows that another is computing.
    Parameters are those of `pipeline.extract`. What decoding converts, assumes or passes over is
    a `UserWarning`.

    Args:
        trunk: name of the trunk.
        weights: `default`, a name, `random`, or a file.
        layer: a stage or `neck`; None for the trunk's own feature.
        pool: `avg`, `max`, `gem` or `flat`; None for the trunk's own.
        image_size: side of the input; None for the weights' own.
        precision: `auto`, `fp32`, `tf32`, `bf16` or `fp16`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: images at once; None for the device's default.
        workers: decoding threads; None for the cores that the process may use.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Attributes:
        n_features_out_: D.
        fingerprint_: of the rows.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> from pipeline import TrunkFeatures
        >>> model = make_pipeline(TrunkFeatures(), LogisticRegression())
        >>> model.fit(["ant.jpg", "bee.jpg"], ["ant", "bee"])  # doctest: +SKIP
    """

    def __init__(
        self,
        trunk: str = DEFAULT_TRUNK,
        *,
        weights: str = "default",
        layer: str | None = None,
        pool: str | None = None,
        image_size: int | None = None,
        precision: str = "auto",
        device: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
        cache: str | Path | None = None,
    ):
        self.trunk = trunk
        self.weights = weights
        self.layer = layer
        self.pool = pool
        self.image_size = image_size
        self.precision = precision
        self.device = device
        self.batch_size = batch_size
        self.workers = workers
        self.cache = cache

    def fit(self, X: Sequence[Any], y: Any = None) -> TrunkFeatures:
        """Compute the features of X; there is nothing to learn.

        Args:
            X: as in `transform`.
            y: ignored.
        """
        self._features(X)
        return self

    def fit_transform(self, X: Sequence[Any], y: Any = None) -> np.ndarray:
        """Return the features of X, [N, D] float32."""
        return self._features(X)

    def transform(self, X: Sequence[Any]) -> np.ndarray:
        """Return the features of X, [N, D] float32.

        Args:
            X: N paths, also as a data frame's column `path`; or N pictures: PIL images, files or
                their bytes, or uint8 arrays [H, W, 3], [H, W, 4] or [H, W] (one array
                [N, H, W, 3] too).

        Raises:
            PipelineError: an image that cannot be read, named; another input than these.
        """
        check_is_fitted(self)
        return self._features(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the D features."""
        check_is_fitted(self)
        return np.array([f"{self.trunk}_{i}" for i in range(self.n_features_out_)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        """Say that inputs are not tables of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        tags.requires_fit = True
        return tags

    def _features(self, X: Sequence[Any]) -> np.ndarray:
        with _ALONE:
            return self._looked_up(X)

    def _looked_up(self, X: Sequence[Any]) -> np.ndarray:
        values = self.get_params()
        cache = Cache.at(values.pop("cache"))
        options = ExtractOptions(**values)
        options.check()
        several = images_in(X)
        if several is None:
            raise PipelineError("TrunkFeatures takes a sequence of paths or pictures, not one.")
        given = [as_source(item) for item in several]
        if not given:
            raise PipelineError("TrunkFeatures was given no images.")
        keys: list[Key] = [(hashlib.sha256(_bytes(source)).digest(), 0) for source in given]
        sources = dict(zip(keys, given, strict=True))
        permitted.permit(options.trunk)
        make_folder(cache.root)
        facts, trunk = spec.resolve(
            options.trunk, options.weights, options.keys, size=options.image_size,
            memo=cache.memo, state_dir=cache.weights,
        )  # fmt: skip
        asked = feature_key(facts, options)
        with cache.reading(asked.fingerprints, keys):
            rows = find_rows(cache, asked, keys, device=options.device, engine=options.engine)
            fill(cache, options, [rows], sources, trunk=trunk, progress=Silent())
            cache.end_run(rows.key.fingerprint, list(sources))
            reasons = rows.index.bad
            bad = [(sources[key], reasons[key]) for key in keys if key in reasons]
            if bad:
                named = "; ".join(f"{_name(source)}: {reason}" for source, reason in bad[:5])
                raise PipelineError(f"{len(bad)} images have no features: {named}.")
            features = rows.gather(keys)
            found = rows.index.remarked(keys)
        remarks = ((_name(given[at]), remark) for at, said in found.items() for remark in said)
        for note in Remarks(remarks).notes:
            warnings.warn(note, stacklevel=3)
        self.n_features_out_ = features.shape[1]
        self.fingerprint_ = rows.key.fingerprint
        return features


def _bytes(source: str | bytes) -> bytes:
    from pipeline.images.decoding.reading import read_unknown

    try:
        return source if isinstance(source, bytes) else read_unknown(source)
    except BadImage as error:
        advice = way(str(error))
        raise PipelineError(
            f"Cannot take {shown(_name(source))}: {error}{advice and f' ({advice})'}."
        ) from error


def _name(source: str | bytes) -> str:
    return source if isinstance(source, str) else "a picture"
