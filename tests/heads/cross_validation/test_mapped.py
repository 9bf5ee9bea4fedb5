"""Rows that workers of Dask read from the table's file themselves."""

import pickle

import joblib
import numpy as np
import pytest
from tables import make_table

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.heads.cross_validation import mapped
from pipeline.heads.cross_validation.mapped import MappedRows
from pipeline.heads.estimators.normalize import Normalizer
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable


@pytest.fixture
def table(tmp_path) -> FeatureTable:
    return make_table(train=60, val=20, test=20, dim=300).write(tmp_path / "t.h5")


@pytest.fixture(autouse=True)
def nothing_loaded():
    mapped._loaded.clear()


def rows_of(table, used) -> MappedRows:
    made = MappedRows.of(Normalizer.fit("standard", table.features, used), table.features, used)
    assert made is not None
    return made


def test_what_is_sent_is_small_and_gives_the_same_rows(table):
    used = np.arange(0, 100, 2)
    made = rows_of(table, used)
    sent = pickle.dumps(made)
    assert len(sent) < 0.2 * len(used) * 300 * 4
    got = pickle.loads(sent).load()
    assert got.tobytes() == made.normalizer.apply(table.features, used).tobytes()
    assert pickle.loads(sent).load() is got  # read once by each process


def test_other_rows_are_read_anew(table):
    first, second = rows_of(table, np.arange(50)).load(), rows_of(table, np.arange(40)).load()
    assert (len(first), len(second)) == (50, 40)


def test_a_worker_that_sees_no_table_or_another_one_says_so(table, tmp_path):
    made = rows_of(table, np.arange(50))
    other = make_table(train=60, val=20, test=20, dim=300, seed=5).write(tmp_path / "u.h5")
    (tmp_path / "t.h5").write_bytes((tmp_path / "u.h5").read_bytes())
    with pytest.raises(PipelineError, match="sees another table at"):
        made.load()
    assert other.path is not None
    (tmp_path / "t.h5").unlink()
    with pytest.raises(PipelineError, match="must see it at the same place"):
        made.load()


def test_what_is_no_map_of_a_whole_array_is_not_sent_so(table):
    used, normalizer = np.arange(9), Normalizer("none")
    assert MappedRows.of(normalizer, np.asarray(table.features[:]), used) is None
    assert MappedRows.of(normalizer, np.array(table.features), used) is None
    assert MappedRows.of(normalizer, table.features, used[:0]) is None


def test_with_dask_the_workers_read_the_table_and_find_the_same_head(table, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    here = pipeline.fit_head(table, clf="ridge", cache=tmp_path / "a", jobs=1)
    read = []
    real = MappedRows._read
    monkeypatch.setattr(MappedRows, "_read", lambda self: read.append(1) or real(self))
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config(backend="dask", client=client),
    ):
        there = pipeline.fit_head(table, clf="ridge", cache=tmp_path / "b")
    assert read == [1]
    assert there.id == here.id
    x = table.features[:20]
    np.testing.assert_array_equal(there.predict_proba(x), here.predict_proba(x))


@pytest.mark.slow
def test_the_option_starts_workers_and_ends_them(table, tmp_path):
    pytest.importorskip("distributed", reason="Dask is not installed")
    here = pipeline.fit_head(table, clf="ridge", cache=tmp_path / "a", jobs=1)
    there = pipeline.fit_head(table, clf="ridge", cache=tmp_path / "b", on="dask")
    assert there.id == here.id and there.info.trials == here.info.trials
    assert Cache.at(tmp_path / "b").root.exists()


def test_where_there_is_no_scheduler_it_is_said(table, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed")
    import distributed

    def refused(address, **options):
        raise OSError(f"Timed out trying to connect to {address}")

    monkeypatch.setattr(distributed, "Client", refused)
    with pytest.raises(PipelineError, match=r"There is no Dask scheduler at tcp://127\.0\.0\.1:9"):
        pipeline.fit_head(table, cache=tmp_path / "c", on="tcp://127.0.0.1:9")
    with pytest.raises(UsageError, match="--jobs is for this machine"):
        pipeline.fit_head(table, cache=tmp_path / "c", on="dask", jobs=2)
    with pytest.raises(UsageError, match="is neither dask nor like"):
        pipeline.fit_head(table, cache=tmp_path / "c", on="ray")
