"""`Head`: a fitted head as it is kept in `cache/heads/<id>/`, and read back without unpickling."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.arguments import named, path_of, plain
from pipeline.errors import DamagedError, PipelineError, UsageError
from pipeline.heads.estimators.scores import estimator_scores
from pipeline.heads.estimators.trees import sound, trees_of
from pipeline.heads.linear import LinearHead
from pipeline.heads.metrics import softmax
from pipeline.images.names import listed
from pipeline.store.result_records import HeadInfo
from pipeline.store.results import HEAD
from pipeline.store.table import FeatureTable

#: The head's file: a linear one's, and any other's.
_LINEAR, _OTHER = "head.safetensors", "head.skops"
#: Every type beyond skops' own that a stored estimator may hold; anything else is refused.
TRUSTED = (
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn.tree._tree.Tree",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.utils._bunch.Bunch",
    "numpy.dtype",
)
#: One thread at a time bars the way to torch.
_IMPORTING = threading.Lock()


class Head:
    """What maps features to classes.

    Attributes:
        info: `head.json`: the table it was fitted on, its choice and all it scored.
        classes_: [K] class names; columns of probabilities are in this order.
        linear: W and b on raw features, for linear heads; else None.
        folder: where it is kept.
    """

    def __init__(self, info: HeadInfo, *, linear: LinearHead | None, estimator: Any,
                 folder: Path | None = None):  # fmt: skip
        self.info, self.linear, self.estimator, self.folder = info, linear, estimator, folder
        self.classes_ = np.array(info.classes, dtype=object)

    def __repr__(self) -> str:
        """Return what it is, for people."""
        return f"<{self.info.summary}>"

    @property
    def id(self) -> str:
        """Return the head's id, twelve hexadecimal digits."""
        return self.info.id

    def predict_proba(self, features: Any, *, calibrated: bool = True) -> np.ndarray:
        """Return probabilities [N, K] float64.

        Args:
            features: raw features [N, D], or a `FeatureTable` of the same fingerprint.
            calibrated: divide logits by the temperature of `info.calibration`.

        Raises:
            PipelineError: features of another trunk, of another length, or not finite.
        """
        temperature = self.info.calibration_temperature if calibrated else 1.0
        return softmax(self.logits(features), temperature)

    def logits(self, features: Any) -> np.ndarray:
        """Return the logarithms of probabilities up to a constant for each row, [N, K] float.

        −∞ for a class that the estimator never saw.

        Args:
            features: as in `predict_proba`.
        """
        x = self._features(features)
        if self.linear is not None:
            return self.linear.scores(x) / np.float32(self.linear.temperature)
        values = estimator_scores(self.estimator, x, probabilities=self.info.temperature is None)
        if self.info.temperature is not None:
            values = values / self.info.temperature
        full = np.full((len(x), len(self.classes_)), -np.inf)
        full[:, np.asarray(self.estimator.classes_, np.int64)] = values
        return full

    def predict(self, features: Any) -> np.ndarray:
        """Return the likeliest class's name for each row, [N] of str."""
        return np.asarray(self.classes_[self.logits(features).argmax(1)])

    def score(self, features: Any, labels: Sequence[str] | None = None) -> float:
        """Return the share of right predictions.

        Args:
            features: as in `predict_proba`.
            labels: N class names; of a `FeatureTable` its own without it, unlabelled rows left out.

        Raises:
            PipelineError: as `predict_proba`, or there are no labels.
        """
        predicted = self.predict(features)
        known = np.ones(len(predicted), bool)
        if labels is None and isinstance(features, FeatureTable):
            known = features.labels >= 0
            names = (*features.classes, "")  # the last one for label −1
            labels = [names[label] for label in features.labels]
        if labels is None or not known.any():
            raise PipelineError("There are no labels to score on: give N class names.")
        return float(is_right(predicted, labels, self.info.classes, "rows")[known].mean())

    def _features(self, features: Any) -> np.ndarray:
        fingerprint = getattr(features, "fingerprint", None)
        if fingerprint is not None:
            if fingerprint != self.info.fingerprint:
                raise PipelineError(
                    f"The head {self.id} was fitted on features of another fingerprint "
                    f"({self.info.trunk}, {self.info.fingerprint[:12]}) than this table's "
                    f"({fingerprint[:12]}); extract with the same trunk, weights and options."
                )
            features = features.features
        if hasattr(features, "detach"):
            features = features.detach()
        try:
            x = np.asarray(features, np.float32)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"The head {self.id} takes features [N, {self.info.dim}] or a FeatureTable, not "
                f"{named(features)}."
            ) from error
        if x.ndim != 2 or x.shape[1] != self.info.dim:
            raise PipelineError(
                f"The head {self.id} takes features [N, {self.info.dim}], not {x.shape}."
            )
        if not np.isfinite(x).all():
            raise PipelineError("The features have values that are not finite.")
        return x

    def write(self, folder: Path) -> None:
        """Write the head itself, then `head.json`, into an existing folder.

        `info` has the digests of the folder's files from then on: this comes last.
        """
        if self.linear is not None:
            self.linear.save(folder / _LINEAR)
        else:
            _skops().dump(self.estimator, folder / _OTHER)
            if strange := _strange(folder / _OTHER):
                raise PipelineError(
                    f"it holds {', '.join(strange)}, which no file of a head may hold. Fit it "
                    "yourself on `table.features`."
                )
        self.info = HEAD.write(folder, self.info)

    @classmethod
    def open(cls, folder: str | Path) -> Head:
        """Read a head; nothing is unpickled.

        Raises:
            PipelineError: there is none.
            DamagedError: a file is damaged or missing, of another schema, or holds types that are
                not expected.
        """
        folder = path_of(folder, "A head's folder")
        info = HEAD.read(folder)
        linear, estimator = None, None
        if _LINEAR in info.files:
            linear = LinearHead.load(HEAD.check(folder, info, _LINEAR))
            if linear.weight.shape != (len(info.classes), info.dim):
                raise DamagedError(
                    f"The head {folder} is damaged: its weights do not fit its head.json."
                )
        else:
            estimator = _load_estimator(HEAD.check(folder, info, _OTHER))
        return cls(info, linear=linear, estimator=estimator, folder=folder)


def is_right(predicted: np.ndarray, labels: Any, classes: Sequence[str], what: str) -> np.ndarray:
    """Return whether predictions [N] are the labels [N] that a person gives, bool [N].

    Raises:
        UsageError: there is not one label for each of `what`, or none that is a class.
    """
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise UsageError(f"Labels must be N class names, not {named(labels)}.")
    given = [str(plain(label, str)) for label in labels]
    if len(given) != len(predicted):
        raise UsageError(f"{len(predicted)} {what} have {len(given)} labels.")
    if given and not set(given) & set(classes):
        raise UsageError(
            f"None of the labels is one of the classes {listed(classes)}, as {listed(given, 1)}."
        )
    return np.asarray(predicted == np.array(given, dtype=object))


def _skops() -> Any:
    """Import `skops.io` without torch: it imports all of scikit-learn, also what wraps torch."""
    wrapper = "sklearn.externals.array_api_compat.torch"
    with _IMPORTING:
        if "skops.io" in sys.modules or wrapper in sys.modules or "torch" in sys.modules:
            return import_module("skops.io")
        sys.modules[wrapper] = None  # type: ignore[assignment]  # an ImportError, passed over
        try:
            return import_module("skops.io")
        finally:
            sys.modules.pop(wrapper, None)


def _strange(path: Path) -> list[str]:
    """Return the types in a file that no head may hold."""
    return [name for name in _skops().get_untrusted_types(file=path) if name not in TRUSTED]


def _load_estimator(path: Path) -> Any:
    try:
        if strange := _strange(path):
            raise DamagedError(
                f"The head {path} is refused: it holds {', '.join(strange)}, which no head does."
            )
        estimator = _skops().load(path, trusted=list(TRUSTED))
        if not all(map(sound, trees_of(estimator))):
            raise DamagedError(f"The head {path} is damaged: a tree in it leads nowhere.")
        return estimator
    except DamagedError:
        raise
    except Exception as error:  # skops raises what zipfile, json and numpy raise
        raise DamagedError(f"The head {path} is damaged: {error}") from error
