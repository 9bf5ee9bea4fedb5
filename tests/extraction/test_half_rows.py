"""`extract --dtype float16`: rows and tables of half the size, good for all that follows."""

from dataclasses import replace

import numpy as np
import pytest
from photos import FAST, OPTIONS, paint, tune

import pipeline
from pipeline.errors import PipelineError
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.writer import stored
from pipeline.store.cache import Cache


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Return photos, and a cache with a table of float16."""
    root = tmp_path_factory.mktemp("half")
    paint(root / "photos", splits=("train", "val", "test"))
    pipeline.extract(root / "photos", cache=root / "cache", dtype="float16", **OPTIONS)
    return root


def test_half_rows_are_the_whole_ones_rounded_and_have_a_fingerprint_of_their_own(work, tmp_path):
    half = Cache.at(work / "cache").open_table(None)
    whole = pipeline.extract(work / "photos", cache=work / "cache", **OPTIONS)
    assert half.features.dtype == np.float16 and whole.features.dtype == np.float32
    assert half.features.tobytes() == whole.features.astype(np.float16).tobytes()
    assert half.fingerprint != whole.fingerprint and half.provenance.dtype == "float16"
    pipeline.extract(work / "photos", cache=work / "cache", dtype="float16", **OPTIONS)  # current
    assert half.path.stat().st_size < 0.7 * whole.path.stat().st_size


def test_heads_fine_tuning_and_what_looks_at_them_work_on_half_rows(work):
    given = {"cache": work / "cache"}
    table = Cache.at(work / "cache").open_table(None)
    assert table.features.dtype == np.float16
    for clf in ("linear", "logreg", "lda", "ridge", "nb", "knn", "ncm", "svm-rbf"):
        head = pipeline.fit_head(table, clf=clf, folds=2, **given)
        assert head.info.metrics["val"].accuracy > 0.9, clf
    head = pipeline.fit_head(table, clf="logreg", folds=2, **given)
    files = sorted(str(path) for path in (work / "photos" / "test").rglob("*.png"))
    cached = pipeline.predict(files, head, use_cache=True, **given)
    fresh = pipeline.predict(files, head, engine="torch", **given)
    a, b = (np.array([dict(one.top)["red"] for one in found]) for found in (cached, fresh))
    np.testing.assert_allclose(a, b, atol=5e-3)
    done = tune(work, head.id, **{**FAST, "epochs": 1, "views": 1, "augment": "auto"})
    assert done.info.metrics["val"].start.accuracy > 0.9
    assert pipeline.evaluate(None, head, data=work / "photos", **given)
    assert pipeline.audit(table, **given) is not None
    assert pipeline.report(table, **given) is not None


def test_views_are_half_too_and_a_resumed_run_computes_nothing(work):
    cache = Cache.at(work / "cache")
    asked = ExtractOptions(dtype="float16", views=2, **OPTIONS)
    done = extract_table(str(work / "photos"), asked, cache)
    assert done.table.views.dtype == np.float16 and done.extracted == 0
    again = extract_table(str(work / "photos"), replace(asked, views=1), cache)
    assert (again.extracted, again.views_computed) == (0, 0)


def test_rows_that_float16_cannot_hold_are_refused_with_the_way_out(work):
    from pipeline.trunks.spec import FeatureKey

    key = FeatureKey.of(Cache.at(work / "cache").open_table(None).provenance)
    with pytest.raises(PipelineError, match="do not fit float16: give --dtype float32"):
        stored(np.full((2, 3), 1e6, np.float32), key)
