"""Whatever of the cache comes from a stranger is refused with a sentence: nothing of it runs.

What the readers do with single files is tested beside them (HDF5, heads, weights); here whole
artefacts are opened as the verbs open them, while another folder and Python's events are watched.
"""

import hashlib
import json
import pickle
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hostile import MAKERS, Bomb, put
from records import model_info
from safetensors.numpy import save
from tables import make_table
from watching import listening, watching

from pipeline.errors import DamagedError, PipelineError
from pipeline.finetuning.model import Model
from pipeline.finetuning.states import read_state
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.store.results import MODEL
from pipeline.store.table import FeatureTable

KEYS = [(bytes([n]) * 32, 0) for n in range(4)]


@pytest.fixture
def untouched(tmp_path):
    """Return a context in which no file elsewhere may be opened and no foreign code be run."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    @contextmanager
    def context():
        with watching(elsewhere) as opened, listening() as heard:
            yield
        assert (opened, heard) == ([], [])
        assert not (elsewhere / "ran").exists()

    return context


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["features", "labels", "provenance", "checksum", "more"])
def test_a_table_that_leads_elsewhere_is_refused(tmp_path, untouched, make, name):
    path = tmp_path / "t.h5"
    make_table(path, train=4)
    put(path, name, make, tmp_path / "elsewhere" / "secret.h5")
    with untouched(), pytest.raises(DamagedError, match=r"t\.h5"):
        FeatureTable.open(path)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["rows", "digests", "meta"])
def test_a_shard_that_leads_elsewhere_is_named_and_not_read(tmp_path, untouched, make, name):
    cache = Cache.at(tmp_path / "cache")
    store = cache.rows("f" * 64)
    old = store.path(store.commit(KEYS, np.eye(4, dtype=np.float32), engine="test"))
    put(old, name, make, tmp_path / "elsewhere" / "secret.h5")
    own = hashlib.sha256(old.read_bytes()).hexdigest() + ".h5"  # its name is no protection
    store.path(own).parent.mkdir(exist_ok=True)
    old.rename(store.path(own))
    with untouched():
        index = store.index()
        problems = upkeep.verify(cache).problems
    assert list(index.damaged) == [own] and not index.rows
    assert list(problems) == [str(store.path(own))]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["digests", "meta"])
def test_a_manifest_that_leads_elsewhere_stops_the_collector(tmp_path, untouched, make, name):
    cache = Cache.at(tmp_path / "cache")
    cache.begin_run("f" * 64, KEYS)
    [path] = (cache.root / "runs").iterdir()
    put(path, name, make, tmp_path / "elsewhere" / "secret.h5")
    with untouched(), pytest.raises(DamagedError, match=path.name):
        upkeep.garbage(cache)


def payloads(tmp_path):
    """Return files that make a folder where they are unpickled, and ones that overstate."""
    bomb = Bomb(tmp_path / "elsewhere" / "ran")
    torch.save({"w": torch.zeros(2), "bomb": bomb}, tmp_path / "saved.pth")
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}})
    return {
        "a pickle": pickle.dumps(bomb),
        "torch.save": (tmp_path / "saved.pth").read_bytes(),
        "larger than the file": len(header).to_bytes(8, "little") + header.encode() + bytes(64),
        "a header without end": (1 << 62).to_bytes(8, "little") + b"{}",
    }


def model_folder(tmp_path, weights=None, **info):
    folder = tmp_path / "cache" / "models" / "0123456789ab"
    folder.mkdir(parents=True)
    data = save({"head.weight": np.zeros((2, 512), "f4")}) if weights is None else weights
    (folder / "model.safetensors").write_bytes(data)
    MODEL.write(folder, model_info(trunk="resnet18", **info))  # a stranger can record digests too
    return folder


@pytest.mark.parametrize("how", ["a pickle", "torch.save", "larger than the file",
                                 "a header without end"])  # fmt: skip
def test_a_model_with_something_else_in_place_of_its_weights_is_refused(tmp_path, untouched, how):
    folder = model_folder(tmp_path, payloads(tmp_path)[how])
    with untouched(), pytest.raises(DamagedError, match=r"The model .* is damaged"):
        Model.open(folder, cache=tmp_path)


def test_a_model_whose_description_is_a_pickle_is_refused(tmp_path, untouched):
    folder = model_folder(tmp_path)
    (folder / "model.json").write_bytes(payloads(tmp_path)["a pickle"])
    with untouched(), pytest.raises(DamagedError, match="is damaged"):
        Model.open(folder, cache=tmp_path)


@pytest.mark.parametrize("how", ["a pickle", "torch.save"])
def test_a_model_that_names_weights_with_a_payload_is_refused(tmp_path, untouched, how):
    weights = tmp_path / "w.pth"
    weights.write_bytes(payloads(tmp_path)[how])
    folder = model_folder(tmp_path, weights_asked=str(weights))
    with untouched(), pytest.raises(PipelineError, match="nothing in it was run"):
        Model.open(folder, cache=tmp_path)


@pytest.mark.parametrize("how", ["a pickle", "torch.save", "larger than the file"])
def test_the_state_of_an_unfinished_run_is_not_unpickled(tmp_path, untouched, how):
    path = tmp_path / "x.safetensors"
    path.write_bytes(payloads(tmp_path)[how])
    with untouched(), pytest.raises(DamagedError, match="is damaged"):
        read_state(path)


def test_the_guards_see_a_payload_that_runs(tmp_path, untouched):
    data = payloads(tmp_path)
    with pytest.raises(AssertionError), untouched():
        pickle.loads(data["a pickle"])
    shutil.rmtree(tmp_path / "elsewhere" / "ran")
    (tmp_path / "elsewhere" / "secret").write_text("x")
    with pytest.raises(AssertionError), untouched():
        (tmp_path / "elsewhere" / "secret").read_text()
