import json

import pytest
from click.testing import CliRunner
from photos import paint

from pipeline.analysis.comparing import feature_cost
from pipeline.cli import main

WORDS = [
    "--trunks",
    "squeezenet1_1:random,nothing",
    "--layers",
    "own,layer3",
    "--clf",
    "ncm",
    "--image-size",
    "64",
    "--precision",
    "fp32",
    "--engine",
    "torch",
    "--jobs",
    "1",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    paint(root / "photos", each=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_cost, "ROUND", 0.0)
        patch.setattr(feature_cost, "ROUNDS", 1)
        yield root


def invoke(root, *words):
    given = ["compare", str(root / "photos"), *words, "--cache", str(root / "cache")]
    return CliRunner().invoke(main, given)


def test_it_prints_a_table_the_failures_and_where_the_picture_is_and_ends_with_1(photos):
    done = invoke(photos, *WORDS)
    assert done.exit_code == 1, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:5] == ["trunk,", "layer,", "pooling", "D", "ms"]
    assert "val [95%]" in lines[0] and lines[1].lstrip().startswith("1")
    assert any(line.startswith("Failed   nothing own: There is no trunk") for line in lines)
    (picture,) = [line.split(maxsplit=1)[1] for line in lines if line.startswith("Picture")]
    assert picture == str(photos / "cache" / "comparisons" / "photos.png")
    assert (photos / "cache" / "comparisons" / "photos.png").stat().st_size > 10_000
    assert "squeezenet1_1:random layer3: ncm" in done.stderr, "each is told as it ends"


def test_json_is_one_object_and_the_picture_goes_where_it_is_told(photos, tmp_path):
    out = tmp_path / "deep" / "p.png"
    words = ["--trunks", "squeezenet1_1:random", *WORDS[2:], "--json", "--output", str(out)]
    done = invoke(photos, *words)
    values = json.loads(done.stdout)
    assert done.exit_code == 0 and values["failed"] == {} and values["picture"] == str(out)
    assert {one["layer"] for one in values["results"]} == {"feature", "layer3"} and out.is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "p.jpg"], "--output 'p.jpg' does not end in .png"),
        (["--layers", "layr3"], "Did you mean layer3"),
        (["--trunks", ""], "give names with commas"),
        (["--clf", "linera"], "is not a head"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_read(tmp_path, words, said):
    done = invoke(tmp_path, *words)
    assert done.exit_code == 2 and said in done.output and "Traceback" not in done.output
