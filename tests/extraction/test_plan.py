"""Parts of whole batches, and the loop over one of them with any reader, engine and writer."""

from collections import deque
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipeline.extraction import plan
from pipeline.extraction.compute import compute_part
from pipeline.extraction.plan import Parts, find_rows, make_plan
from pipeline.images.decoding import nvjpeg
from pipeline.images.decoding.loader import Batch
from pipeline.images.preprocess import Preprocess
from pipeline.progress import Silent
from pipeline.trunks.engines import choice, devices
from pipeline.trunks.engines.engine import run_batches
from pipeline.trunks.spec import LIBJPEG, NVJPEG, FeatureKey

KEYS = [(bytes([n]) * 32, 0) for n in range(20)]
SOURCES = {key: f"{n}.png" for n, key in enumerate(KEYS)}


def rows_of(cache, layer="feature"):
    key = FeatureKey("some", "d" * 64, layer, "own", Preprocess(10, 8), "fp32")
    return find_rows(cache, key, KEYS, device="cpu")


def test_rows_in_bf16_that_this_cpu_computes_in_fp32_are_filed_under_fp32(cache, monkeypatch):
    monkeypatch.setattr(choice, "settled", lambda precision, **where: "fp32")
    key = FeatureKey("some", "d" * 64, "feature", "own", Preprocess(10, 8), "bf16")
    rows = find_rows(cache, key, KEYS, device="cpu")
    assert rows.key.precision == "fp32" and rows.store.fingerprint in key.fingerprints
    assert rows.notes == [
        "OpenVINO does not compute in bf16 on this CPU: the features are computed, and kept, in "
        "fp32."
    ]
    assert find_rows(cache, key, [], device="cpu").key.precision == "bf16"  # nothing is missing


def half_key(decoder="auto", precision="bf16"):
    return FeatureKey(
        "some", "d" * 64, "feature", "own", Preprocess(10, 8), precision, decoder=decoder
    )


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with nvJPEG, as far as plans know."""
    monkeypatch.setattr(devices, "choose_device", lambda asked: "cpu" if asked == "cpu" else "cuda")
    monkeypatch.setattr(
        devices, "choose_precision", lambda asked, device: "bf16" if asked == "auto" else asked
    )
    monkeypatch.setattr(devices, "likely_precision", lambda device: "bf16")
    monkeypatch.setattr(nvjpeg, "is_right", lambda: True)


def test_rows_of_nvjpegs_pixels_are_never_mixed_with_those_of_libjpeg_turbo(cache, gpu):
    here = find_rows(cache, half_key(), KEYS, device="cuda")
    there = find_rows(cache, half_key(), KEYS, device="cpu")
    assert (here.key.decoder, there.key.decoder) == (NVJPEG, LIBJPEG)
    assert here.store.fingerprint != there.store.fingerprint
    assert {here.store.fingerprint, there.store.fingerprint} <= set(half_key().fingerprints)
    exact = find_rows(cache, half_key(precision="fp32"), KEYS, device="cuda")
    assert exact.key.decoder == LIBJPEG


@pytest.mark.parametrize("precision", ["bf16", "auto"])
@pytest.mark.parametrize("decoder", [LIBJPEG, NVJPEG])
def test_rows_that_are_all_in_the_cache_are_taken_whatever_decoded_them(
    cache, gpu, precision, decoder
):
    store = cache.rows(half_key(decoder).fingerprint)
    store.commit(KEYS, np.zeros((len(KEYS), 3), np.float32), engine="some")
    for device in ("cpu", "cuda"):
        rows = find_rows(cache, half_key(precision=precision), KEYS, device=device)
        assert rows.key.decoder == decoder and rows.key.precision == "bf16"


def test_a_gpu_goes_on_with_rows_of_libjpeg_turbo_and_a_cpu_never_with_nvjpegs(cache, gpu):
    for decoder, device, chosen in ((LIBJPEG, "cuda", LIBJPEG), (NVJPEG, "cpu", LIBJPEG)):
        own = cache.rows(half_key(decoder).fingerprint)
        count = 5 + (decoder == NVJPEG)
        own.commit(KEYS[:count], np.zeros((count, 3), np.float32), engine="some")
        rows = find_rows(cache, half_key(), KEYS, device=device)
        assert rows.key.decoder == chosen
        if device == "cuda":
            assert rows.notes == [
                "JPEGs are decoded by libjpeg-turbo, and not on the GPU: the cache holds 5 of the "
                "20 rows so."
            ]


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(1, [8, 8, 4]), (3, [6, 6, 6, 2]), (4, [8, 8, 4]), (9, [9, 9, 2])]
)
def test_parts_are_whole_batches_of_about_a_shard(cache, monkeypatch, batch_size, sizes):
    monkeypatch.setattr(plan, "SHARD_ROWS", 8)
    rows = rows_of(cache)
    rows.computed = list(KEYS)
    made = make_plan(cache, [rows], SOURCES, batch_size=batch_size)
    assert [len(part.keys) for part in made.parts] == sizes
    assert [key for part in made.parts for key in part.keys] == KEYS
    assert [part.batches for part in made.parts] == [-(-n // batch_size) for n in sizes]


def test_a_plan_names_what_any_fingerprint_lacks_in_data_set_order(cache):
    some, whole = rows_of(cache), rows_of(cache, "layer3")
    other = rows_of(cache, "layer2")
    some.computed, other.computed = KEYS[5:7], KEYS[2:6]
    made = make_plan(cache, [some, whole, other], SOURCES, batch_size=4)
    assert [*made.parts.keys] == KEYS[2:7] and made.wanted == tuple(KEYS)
    assert made.rows == (some, other) and made.lacking == [some, other]


def test_a_fingerprint_that_a_killed_run_completed_stays_in_the_network(cache):
    some, whole = rows_of(cache), rows_of(cache, "layer3")
    some.computed = KEYS[5:7]
    cache.begin_run(whole.key.fingerprint, KEYS)
    made = make_plan(cache, [some, whole], SOURCES, batch_size=4)
    assert made.rows == (some, whole) and made.lacking == [some]


class Ahead:
    """An engine that takes two batches before it gives the first one's rows."""

    name, precision, notes = "ahead", "", ()

    def run(self, batches):
        taken = deque()
        for crops in batches:
            taken.append(crops)
            if len(taken) > 2:
                yield taken.popleft().numpy()
        while taken:
            yield taken.popleft().numpy()


class Listing:
    """A writer that lists what it is given."""

    def __init__(self):
        self.rows, self.commits = {}, []

    def take(self, computed, keys, batch, sources):
        pairs = zip(keys, computed[: len(keys)], strict=True)
        good = {key: row for slot, (key, row) in enumerate(pairs) if slot not in batch.bad}
        self.rows.update(good)
        return len(batch.bad)

    def end(self):
        self.commits.append(len(self.rows))
        return ()


def read(keys, size=4):
    for start in range(0, len(keys), size):
        part = keys[start : start + size]
        crops = torch.tensor([[key[0][0]] for key in part] + [[99]] * (size - len(part)))
        yield Batch(start, len(part), crops, {1: "bad"} if start == 8 else {})


def test_parts_share_a_reader_and_an_engine_and_each_row_keeps_its_image():
    parts = Parts(KEYS[:18], [*SOURCES.values()][:18], batch_size=4, ends=[8, 16, 18])
    writer, other = Listing(), Listing()
    computed = run_batches(Ahead(), read(KEYS[:18]))
    for part in parts:
        compute_part(part, computed, [writer, other], Silent())
    assert writer.commits == other.commits == [8, 15, 17]
    assert writer.rows == {key: np.array([key[0][0]]) for key in KEYS[:18] if key != KEYS[9]}


def test_a_batch_comes_with_its_own_rows_however_many_an_engine_takes_ahead():
    pairs = list(run_batches(Ahead(), read(KEYS)))
    assert [batch.start for batch, _ in pairs] == [0, 4, 8, 12, 16]
    assert all(np.array_equal(batch.crops.numpy(), rows) for batch, rows in pairs)


def test_few_images_are_cut_as_they_always_were():
    assert plan.part_sizes(0, 32) == []
    assert plan.part_sizes(700, 32) == [32, 64, 128, 256, 220]
    assert plan.part_sizes(700, 100) == [100, 100, 100, 200, 200]
    assert plan.part_sizes(20_000, 100)[:5] == [100, 100, 100, 200, 200]


def test_many_images_come_in_large_parts_after_small_ones_and_none_is_much_of_the_work():
    sizes = plan.part_sizes(1_000_000, 32)
    assert sum(sizes) == 1_000_000 and len(sizes) < 200
    assert sizes[0] == 32 and max(sizes) == 8192 <= 1_000_000 / 100
    assert all(size % 32 == 0 for size in sizes[:-1])
    grown = [later / earlier for earlier, later in pairwise(sizes)]
    assert max(grown) <= 2
    assert max(plan.part_sizes(50_000, 32)) <= 500
