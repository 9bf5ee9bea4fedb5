"""Caches, tables and photos with a head, for the tests of the verbs."""

import shutil
from contextlib import contextmanager

import pytest
from photos import prepare, prepare_model
from tables import make_table
from threadpoolctl import threadpool_limits

from pipeline.store.cache import Cache
from pipeline.trunks import openvino_engine


@contextmanager
def without_openvino():
    """Converting a trunk for OpenVINO takes longer than running it on a few small pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino_engine, "available", lambda: False)
        yield


@pytest.fixture(autouse=True, scope="module")
def torch_alone():
    with without_openvino():
        yield


@pytest.fixture(scope="module")
def one_thread():
    """Small problems are faster on one thread, and other work may run beside the tests."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def cache(tmp_path):
    return Cache.at(tmp_path / "cache")


@pytest.fixture
def table(tmp_path):
    return make_table(tmp_path / "t.h5", train=60, val=24, test=24, dim=32)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Return photos and a cache with their table and head, not to be changed."""
    with without_openvino():
        return prepare(tmp_path_factory.mktemp("tune"))


@pytest.fixture
def work(prepared, tmp_path):
    """Return a copy of them that a test may change; the table still names the first photos."""
    shutil.copytree(prepared, tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture(scope="session")
def modelled(prepared, tmp_path_factory):
    """Return photos and a cache with their table, head and model, not to be changed."""
    with without_openvino():
        return prepare_model(tmp_path_factory.mktemp("model"), prepared)
