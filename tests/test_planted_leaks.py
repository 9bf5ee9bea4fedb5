"""Leaks planted among real photos are found from extraction to `fit-head`."""

import io
import shutil

import pytest
from conftest import shared
from PIL import Image

import pipeline
from pipeline.heads.fit_head import FitHeadOptions, fit_heads
from pipeline.store.cache import Cache

CLASSES = ("daisy", "rose", "tulip")
COPIED, SAVED_AGAIN = (0, 1), (2, 3)  # of 20 train photos of each class


@pytest.fixture
def planted(tmp_path):
    """A folder with train and val, and the pairs (val, train) of its names that are the same."""
    flowers, root, pairs = shared("flowers"), tmp_path / "flowers", set()
    for name in CLASSES:
        train, val = root / "train" / name, root / "val" / name
        train.mkdir(parents=True), val.mkdir(parents=True)
        photos = sorted((flowers / name).glob("*.jpg"))
        for photo in photos[:20]:
            shutil.copyfile(photo, train / photo.name)
        for photo in photos[20:24]:
            shutil.copyfile(photo, val / photo.name)
        for n in COPIED:
            shutil.copyfile(photos[n], val / f"copied-{n}.jpg")
            pairs.add((f"val/{name}/copied-{n}.jpg", f"train/{name}/{photos[n].name}"))
        for n in SAVED_AGAIN:
            buffer = io.BytesIO()
            Image.open(photos[n]).convert("RGB").save(buffer, "JPEG", quality=90)
            (val / f"again-{n}.jpg").write_bytes(buffer.getvalue())
            pairs.add((f"val/{name}/again-{n}.jpg", f"train/{name}/{photos[n].name}"))
    return root, pairs


@pytest.mark.slow
def test_photos_copied_or_saved_again_into_val_are_all_reported(planted, tmp_path):
    root, pairs = planted
    assert len(pairs) == 12
    cache = tmp_path / "cache"
    table = pipeline.extract(root, cache=cache)
    done = fit_heads(table, FitHeadOptions(clf="linear"), Cache.at(cache))
    found = {(leak.path, leak.other): leak for leak in done.leaks}
    assert pairs <= set(found)
    for (val, _), leak in ((pair, found[pair]) for pair in pairs):
        assert leak.same_file == ("copied" in val)
    false = set(found) - pairs
    print(f"{len(pairs)} planted, all found; {len(false)} others: {sorted(false)}")
    assert len(false) <= 1, false
    assert done.to_json()["leaks"]
