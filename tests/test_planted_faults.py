"""Faults planted among real photos are found by `audit`."""

import io
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import shared
from PIL import Image

import pipeline

COPIED, AGAIN, QUALITIES = 20, 10, (85, 70)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return the table of flowers in train and val with copies in val; and which they are of."""
    root = tmp_path_factory.mktemp("planted")
    photos = sorted(shared("flowers").glob("*/*.jpg"))
    random.Random(0).shuffle(photos)
    train, val = photos[: len(photos) * 3 // 4], photos[len(photos) * 3 // 4 :]
    for split, part in (("train", train), ("val", val)):
        for photo in part:
            place = root / "flowers" / split / photo.parent.name / photo.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo, place)
    pairs = {}
    for n, photo in enumerate(train[: COPIED + AGAIN * len(QUALITIES)]):
        place = root / "flowers" / "val" / photo.parent.name / f"planted-{n:02}.jpg"
        if n < COPIED:
            shutil.copyfile(photo, place)
        else:
            buffer = io.BytesIO()
            quality = QUALITIES[(n - COPIED) // AGAIN]
            Image.open(photo).convert("RGB").save(buffer, "JPEG", quality=quality)
            place.write_bytes(buffer.getvalue())
        name = photo.parent.name
        pairs[f"val/{name}/{place.name}"] = f"train/{name}/{photo.name}"
    table = pipeline.extract(root / "flowers", cache=root / "cache")
    return table, pairs


@pytest.mark.slow
def test_copies_and_re_encoded_copies_are_all_found(planted):
    table, pairs = planted
    done = pipeline.audit(table)
    digest = dict(zip(table.paths, table.digests, strict=True))  # some photos are there twice
    found: dict[str, set[tuple[str, str]]] = {}
    for one in (*done.of_kind("copy"), *done.of_kind("near-duplicate")):
        for row in one.rows:
            others = {(one.kind, table.digests[other]) for other in one.rows if other != row}
            found.setdefault(table.paths[row], set()).update(others)
    for path, of in pairs.items():
        kind = "copy" if int(path[-6:-4]) < COPIED else "near-duplicate"
        assert (kind, digest[of]) in found.get(path, ()), path
    others = [one for one in done.of_kind("near-duplicate") if not _planted(table, one)]
    print(f"{len(pairs)} planted, all found; {len(others)} other near-duplicates")
    assert len(others) <= 60


def _planted(table, finding):
    return any("planted-" in table.paths[row] for row in finding.rows)


@pytest.mark.slow
def test_changed_labels_are_among_the_first_suspects(planted):
    table, _ = planted
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        wrong, labels = rng.choice(len(table.labels), 40, replace=False), table.labels.copy()
        labels[wrong] = (labels[wrong] + rng.integers(1, 5, 40)) % 5
        first = pipeline.audit(replace(table, labels=labels)).of_kind("suspect-label")[:80]
        found.append(len(set(wrong.tolist()) & {one.rows[0] for one in first}))
    print(f"of 40 changed labels among the first 80 suspects: {found}, mean {np.mean(found)}")
    assert np.mean(found) >= 18


@pytest.mark.slow
def test_the_picture_that_says_that_there_is_none_is_an_outlier(tmp_path):
    table = pipeline.extract(shared("hymenoptera"), cache=tmp_path / "cache")
    first = [table.paths[one.rows[0]] for one in pipeline.audit(table).of_kind("outlier")[:3]]
    assert "train/ants/imageNotFound.gif" in first
