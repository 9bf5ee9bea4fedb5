"""A weights file is welcome as a `Path` wherever weights are given from Python."""

from pathlib import Path

import pytest
import torch
from conftest import make_folder

import pipeline
from pipeline.trunks.registry import find

TRUNK = "timm/test_resnet"


@pytest.fixture
def weights_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(find(TRUNK).build().state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_extract_takes_weights_as_path_and_keeps_them_as_absolute_text(tmp_path, weights_file):
    data = make_folder(tmp_path / "photos", each=2)
    spellings = [weights_file, str(weights_file), Path("~/w.pth"), "~/w.pth"]
    for weights in spellings:
        table = pipeline.extract(data, trunk=TRUNK, weights=weights, cache=tmp_path / "c")
        assert table.provenance.weights == "w.pth"
        assert table.provenance.weights_asked == str(weights_file)
    assert len(list((tmp_path / "c" / "tables").glob("*.h5"))) == 1, "the same table each time"


def test_the_transformer_takes_weights_as_path(tmp_path, weights_file):
    data = make_folder(tmp_path / "photos", each=1)
    files = sorted(data.rglob("*.png"))
    extractors = [
        pipeline.TrunkFeatures(trunk=TRUNK, weights=weights, cache=tmp_path / "c")
        for weights in (weights_file, str(weights_file))
    ]
    one, other = (extractor.fit_transform(files) for extractor in extractors)
    assert (one == other).all()
