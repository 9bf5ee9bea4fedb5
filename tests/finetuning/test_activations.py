import hashlib
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.finetuning import activations
from pipeline.finetuning.activations import Cached, Live
from pipeline.images.decoding.reading import unguarded
from pipeline.images.preprocess import Preprocess
from pipeline.store.shards import RowStore
from pipeline.trunks.engines.engine import Pixels
from pipeline.trunks.engines.finite import FiniteRows

CPU = torch.device("cpu")


@pytest.fixture
def stored(tmp_path):
    store = RowStore(tmp_path / ("a" * 64))
    rows = np.arange(10 * 2 * 2 * 3, dtype=np.float16).reshape(10, 2, 2, 3)
    keys = [(bytes([n // 2] * 32), n % 2) for n in range(10)]
    store.commit(keys[:4], rows[:4], engine="e")
    store.commit(keys[4:], rows[4:], engine="e")
    return store, dict(zip(keys, rows, strict=True))


def test_batches_come_in_the_order_asked_for_from_any_shard(stored):
    store, rows = stored
    keys = list(rows)[::-1] + list(rows)[:3]
    source = Cached(store, store.index(), keys, CPU)
    found = list(source.batches(keys, 4))
    assert [len(x) for x in found] == [4, 4, 4, 1]
    together = torch.cat(found)
    for value, key in zip(together, keys, strict=True):
        assert np.array_equal(value.permute(1, 2, 0).numpy(), rows[key])
    assert found[0].is_contiguous(memory_format=torch.channels_last)


def test_no_keys_are_no_batches(stored):
    store, rows = stored
    assert list(Cached(store, store.index(), list(rows), CPU).batches([], 4)) == []


def test_activations_stay_on_a_gpu_that_has_twice_their_room():
    assert activations._fits(50, 100) and not activations._fits(51, 100)


def test_resident_activations_give_the_same_batches(stored):
    store, rows = stored
    keys = list(rows)
    source = Cached(store, store.index(), keys, CPU)
    want = torch.cat(list(source.batches(keys[::-1], 3)))
    source.place = {key: n for n, key in enumerate(keys)}
    source.resident = torch.from_numpy(source._rows(keys))
    assert torch.equal(torch.cat(list(source.batches(keys[::-1], 3))), want)


def test_live_crops_are_the_views_and_a_lost_image_is_named(tmp_path):
    from conftest import picture

    data = [picture(n) for n in range(5)]
    paths = {hashlib.sha256(d).digest(): d for d in data}
    live = Live(Pixels(), paths, Preprocess(10, 8), workers=2, device=CPU,
                guarded=partial(nullcontext, unguarded),
                finite=FiniteRows("t", "fp32"))  # fmt: skip
    keys = [(digest, view) for digest in paths for view in (0, 1)]
    found = torch.cat(list(live.batches(keys, 4)))
    assert found.shape == (10, 3, 8, 8) and found.dtype == torch.uint8
    again = torch.cat(list(live.batches(keys[::-1], 3)))
    assert torch.equal(found, again.flip(0))
    broken = tmp_path / "x.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    live.paths = {hashlib.sha256(broken.read_bytes()).digest(): str(broken)}
    with pytest.raises(PipelineError, match="can no longer be decoded"):
        list(live.batches([(d, 0) for d in live.paths], 4))
