"""What `advise`, `audit` and `compare` are asked to write, and what they are asked for at all."""

import numpy as np
import pytest
from PIL import Image
from tables import make_table

import pipeline
from pipeline.errors import PipelineError, UsageError


@pytest.fixture
def table(tmp_path):
    return make_table(tmp_path / "t--fake--0123456789ab.h5", train=12, val=6, dim=8)


def ask(verb, table, output, tmp_path, **options):
    """Call a verb; `compare` gets data that are not there, so that it is asked before it works."""
    given = tmp_path / "no data" if verb == "compare_trunks" else table
    return getattr(pipeline, verb)(given, output=output, cache=tmp_path / "cache", **options)


@pytest.mark.parametrize(
    ("verb", "name"), [("advise", "c.png"), ("audit", "list.csv"), ("compare_trunks", "p.png")]
)
def test_a_file_that_somebody_else_wrote_is_left_alone(table, tmp_path, verb, name):
    path = tmp_path / name
    if path.suffix == ".png":
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    else:
        path.write_text("path,label\na.jpg,ant\n")
    before = path.read_bytes()
    with pytest.raises(PipelineError, match=rf"{name} is there and is not .*name another file"):
        ask(verb, table, path, tmp_path)
    assert path.read_bytes() == before and not (tmp_path / "cache").exists()


def test_ones_own_list_and_picture_are_written_again(table, tmp_path, monkeypatch):
    from pipeline.analysis.advising import learning_curve

    monkeypatch.setattr(learning_curve, "GRID", (1e-2,))
    for verb, name in (("audit", "list.csv"), ("advise", "c.png")):
        for _ in range(2):
            ask(verb, table, tmp_path / name, tmp_path)
        assert (tmp_path / name).stat().st_size > 100


@pytest.mark.parametrize("verb", ["advise", "compare_trunks", "fit_head"])
def test_values_that_cannot_be_right_are_usage_errors_and_value_errors(table, tmp_path, verb):
    function = getattr(pipeline, verb)
    table = tmp_path if verb == "compare_trunks" else table
    with pytest.raises(UsageError, match="--seed -1 is below 0"):
        function(table, seed=-1, cache=tmp_path)
    with pytest.raises(ValueError, match="--seed must be a whole number, not '3'"):
        function(table, seed="3", cache=tmp_path)
