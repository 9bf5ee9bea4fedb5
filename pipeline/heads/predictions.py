"""What a head or model said of images: `predictions-<split>.csv`, and `out-of-fold`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import DamagedError
from pipeline.heads.metrics import softmax
from pipeline.store.atomic import cannot_read
from pipeline.store.result_records import HeadInfo
from pipeline.store.table import FeatureTable


def write(path: Path, table: FeatureTable, rows: np.ndarray, probabilities: np.ndarray) -> None:
    """Write the predictions of some of a table's images.

    Args:
        path: of the file.
        table: names paths, labels and classes.
        rows: [n] of the table, all labelled.
        probabilities: probabilities [n, K].
    """
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "prediction", *[f"p({c})" for c in table.classes]])
        for row, p in zip(rows.tolist(), probabilities, strict=True):
            label, guess = table.classes[table.labels[row]], table.classes[int(p.argmax())]
            writer.writerow([table.paths[row], label, guess, *[f"{value:.6g}" for value in p]])


@dataclass(frozen=True, eq=False)
class StoredPredictions:
    """What `write` wrote. Equal only when identical.

    Attributes:
        rows: [n] of the table.
        probabilities: probabilities [n, K] float64, to six digits, not calibrated.
    """

    rows: np.ndarray
    probabilities: np.ndarray

    def calibrated(self, temperature: float) -> np.ndarray:
        """Return probabilities [n, K] of logits that are divided by a temperature."""
        with np.errstate(divide="ignore"):
            return softmax(np.log(self.probabilities), temperature)


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What a head's search said of the images that each fold held out. Equal only when identical.

    Attributes:
        rows: [m] int64, of the table, each scored by a head that was not fitted on it.
        logits: [m, K] float32; −∞ for a class that was not seen.
        influence: [g] float64, what each of g images, or groups of them, adds to the score by
            which the head was chosen: two heads on the same folds are compared by its difference.
    """

    rows: np.ndarray
    logits: np.ndarray
    influence: np.ndarray

    def write(self, folder: Path) -> None:
        """Write all of it into a result's folder."""
        from safetensors.numpy import save

        tensors = {name: np.ascontiguousarray(own) for name, own in vars(self).items()}
        (folder / OUT_OF_FOLD).write_bytes(save(tensors))

    @classmethod
    def read(cls, path: Path) -> OutOfFold:
        """Read what `write` wrote."""
        return cls(*(_tensor(path, name) for name in ("rows", "logits", "influence")))


#: The file of `OutOfFold`.
OUT_OF_FOLD = "out-of-fold.safetensors"


def read_influence(folder: Path) -> np.ndarray | None:
    """Return `OutOfFold.influence` of a head's folder; None where nothing was held out."""
    path = folder / OUT_OF_FOLD
    return _tensor(path, "influence") if path.exists() else None


def unseen(info: HeadInfo, table: FeatureTable) -> tuple[np.ndarray, np.ndarray]:
    """Return what a head says of the images that it was chosen and reported on.

    Each was scored by a head that was not fitted on it: those of the folds, then val and test.

    Args:
        info: of a head that folds chose, in its folder.
        table: that it was made on.

    Returns:
        Rows of the table [n] int64, and calibrated probabilities [n, K] float64.

    Raises:
        DamagedError: a file of the head is not what was written.
    """
    assert info.folder is not None
    path = info.folder / OUT_OF_FOLD
    kept = OutOfFold.read(path)
    if kept.logits.shape != (len(kept.rows), len(info.classes)):
        raise DamagedError(f"The predictions {path} are damaged: their shapes do not fit.")
    temperature = info.calibration_temperature
    files = [info.folder / f"predictions-{split}.csv" for split in info.metrics]
    stored = [read(file, table) for file in files]
    rows = [kept.rows, *(one.rows for one in stored)]
    probabilities = [
        softmax(kept.logits, temperature), *(one.calibrated(temperature) for one in stored)
    ]  # fmt: skip
    return np.concatenate(rows), np.concatenate(probabilities)


def _tensor(path: Path, name: str) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return np.asarray(file.get_tensor(name))
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"The predictions {path} are damaged: {error}.") from error


def splits(folder: Path) -> tuple[str, ...]:
    """Return the names under which a head or model keeps predictions, such as `val`."""
    names = sorted(path.stem for path in folder.glob("predictions-*.csv"))
    return tuple(name.removeprefix("predictions-") for name in names)


def read(path: Path, table: FeatureTable) -> StoredPredictions:
    """Return predictions of a table's images.

    Args:
        path: of the file.
        table: that they were made on.

    Raises:
        DamagedError: it is not the file that `write` made of this table.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            lines = list(csv.reader(file))
    except OSError as error:
        raise cannot_read("the predictions", path, error) from error
    except csv.Error as error:
        raise DamagedError(f"The predictions {path} are damaged: {error}.") from error
    header = ["path", "label", "prediction", *[f"p({c})" for c in table.classes]]
    try:
        if lines[0] != header:
            raise ValueError("its columns are not those of the table's classes")
        rows = _rows(table, path.stem.removeprefix("predictions-"), [one[0] for one in lines[1:]])
        probabilities = np.array([[float(p) for p in line[3:]] for line in lines[1:]])
        if (
            probabilities.shape != (len(rows), len(table.classes))
            or not np.isfinite(probabilities).all()
        ):
            raise ValueError("a line of it is not whole")
        if [line[1] for line in lines[1:]] != [table.classes[k] for k in table.labels[rows]]:
            raise ValueError("its labels are not those of the table")
    except (KeyError, ValueError, IndexError) as error:
        raise DamagedError(
            f"The predictions {path} are damaged: {error}. Make the head or model again."
        ) from error
    return StoredPredictions(rows, probabilities)


def _rows(table: FeatureTable, split: str, paths: list[str]) -> np.ndarray:
    """Return the rows of images by their paths; where they lie elsewhere now, by their order.

    Raises:
        KeyError: neither tells which rows are meant.
    """
    place = {name: row for row, name in enumerate(table.paths)}
    lost = [path for path in paths if path not in place]
    if not lost:
        return np.array([place[path] for path in paths], np.int64)
    rows = table.rows(split)
    rows = np.asarray(rows[table.labels[rows] >= 0])
    if len(rows) != len(paths):
        raise KeyError(lost[0])
    return rows
