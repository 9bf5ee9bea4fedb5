"""Where the workers cannot be given the features, one process fits what is left."""

import re
from concurrent.futures import BrokenExecutor
from pickle import PicklingError

import joblib
import numpy as np
import pytest
from tables import clouds

from pipeline.heads.cross_validation.candidates import Workers, out_of_fold

X, Y = clouds(60, 8, 3)
ROWS = np.arange(60)
FOLDS = [(ROWS[part != ROWS % 3], ROWS[part == ROWS % 3]) for part in range(3)]
CANDIDATES = [{"shrinkage": 0.1}, {"shrinkage": 0.5}]


def scored(workers):
    found = out_of_fold(
        "lda", CANDIDATES, X, Y, FOLDS, classes=3, balanced=False, seed=0, workers=workers
    )
    return {(number, fold): scores for number, fold, scores, _ in found}


def full_disk():
    """Return what joblib raises where a thread of its own cannot write."""
    error = PicklingError("Could not pickle the task to send it to the workers.")
    error.__cause__ = Exception("Traceback: …\nOSError: [Errno 28] No space left on device\n")
    return error


ERRORS = {
    "No space left on device": full_disk(),
    "Disk quota exceeded": OSError(122, "Disk quota exceeded"),
    "one of them was ended; is the memory full?": BrokenExecutor("A worker process was killed"),
}


@pytest.mark.parametrize("reason", ERRORS)
@pytest.mark.parametrize("after", [0, 4])
def test_one_process_fits_what_several_cannot_and_that_is_told(monkeypatch, reason, after):
    real, counts, told = joblib.Parallel, [], []

    class Parallel(real):
        def __call__(self, calls):
            counts.append(self.n_jobs)
            if self.n_jobs == 1:
                yield from super().__call__(calls)
                return
            for number, (call, given, options) in enumerate(calls):
                if number == after:
                    raise ERRORS[reason]
                yield call(*given, **options)

    want = scored(Workers(1))
    monkeypatch.setattr(joblib, "Parallel", Parallel)
    workers = Workers(2, told.append)
    got = scored(workers)
    assert got.keys() == want.keys()
    for key, scores in want.items():
        np.testing.assert_array_equal(got[key], scores)
    assert told == [
        f"The features (0.0 MB) could not be given to several processes ({reason}): one process "
        "fits the rest. Set JOBLIB_TEMP_FOLDER or TMPDIR to a disk with room, or give --jobs 1."
    ]
    scored(workers)
    assert counts == [2, 1, 1]  # it is not tried again


def test_joblibs_own_folder_that_is_not_there_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path / "file" / "folder"))
    big = np.repeat(X, 600, axis=1)  # joblib maps what is larger than a megabyte
    told = []
    found = out_of_fold(
        "ncm", [{}], big, Y, FOLDS, classes=3, balanced=False, seed=0,
        workers=Workers(2, told.append),
    )  # fmt: skip
    assert len(list(found)) == 3
    assert len(told) == 1 and re.search(r"processes \(Not a directory", told[0])
