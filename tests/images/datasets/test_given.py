import csv
import io
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from pipeline.errors import PipelineError, UsageError
from pipeline.images.datasets.given import as_data, images_in
from pipeline.images.datasets.scan import scan


@pytest.fixture(autouse=True)
def here(make, monkeypatch):
    """Lie beside images a/1.jpg to b/2.jpg."""
    monkeypatch.chdir(make("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"))


PATHS = ["b/2.jpg", "a/1.jpg", "a/2.jpg", "b/1.jpg"]
LABELS = ["b", "a", "a", "b"]
FRAME = pandas.DataFrame({"path": PATHS, "label": LABELS})


class Polars:
    """Answers as a data frame of polars does."""

    columns = ("path", "label")

    def write_csv(self):
        return "path,label\n" + "".join(f"{p},{n}\n" for p, n in zip(PATHS, LABELS, strict=True))


@pytest.mark.parametrize(
    "data",
    [
        list(zip(PATHS, LABELS, strict=True)),
        tuple([Path(p), n] for p, n in zip(PATHS, LABELS, strict=True)),
        np.array([PATHS, LABELS]).T,
        FRAME,
        FRAME.rename(columns={"path": "filename", "label": "category"}),
        FRAME.assign(path=FRAME.path.map(Path), label=FRAME.label.astype("category")),
        FRAME.set_index("path"),
        FRAME[["label", "path"]].set_index(np.array([7, 7, 7, 7])),
        Polars(),
    ],
    ids=lambda data: type(data).__name__,
)
def test_a_list_in_memory_is_what_the_file_would_be(data):
    images = scan(as_data(data))
    assert images.paths == tuple(PATHS)
    assert [images.classes[label] for label in images.labels] == LABELS
    Path("list.csv").write_text(Polars().write_csv())
    assert images.root == scan("list.csv").root


def test_any_iterable_and_paths_alone_do(tmp_path):
    assert scan(as_data(iter(zip(PATHS, LABELS, strict=True)))).paths == tuple(PATHS)
    for data in (PATHS, map(Path, PATHS), pandas.Series(PATHS), np.array(PATHS)):
        images = scan(as_data(data))
        assert images.paths == tuple(PATHS) and images.classes == ()
    elsewhere = scan(as_data([Path.cwd() / path for path in PATHS]))
    assert elsewhere.paths == tuple(PATHS)


def test_splits_groups_numbers_and_unknown_labels():
    data = [
        (PATHS[0], 3, "train", "g"),
        (PATHS[1], np.int64(3), "train", None),
        (PATHS[2], None, "train", None),
        (PATHS[3], 4, "val", float("nan")),
    ]
    images = scan(as_data(data))
    assert images.labels.tolist() == [0, 0, -1, 1] and images.classes == ("3", "4")
    assert images.splits == ("train", "train", "train", "val")
    assert images.groups == ("g", "", "", "")
    for nothing in (None, float("nan"), pandas.NA, pandas.NaT, np.float32("nan")):
        frame = FRAME.astype(object).assign(label=["a", nothing, "b", "b"])
        assert scan(as_data(frame)).labels.tolist() == [0, -1, 1, 1]


@pytest.mark.parametrize(
    "label", ['a "b", c', "a\nb", "a\r\nb", " é", "\udce9", "a;b\tc|d", "'"], ids=repr
)
def test_what_a_csv_file_must_quote_is_the_same_label(label):
    images = scan(as_data([("a/1.jpg", label), ("b/1.jpg", "x")]))
    assert set(images.classes) - {"x"} <= {label.strip(), "é"}  # of bytes that are no UTF-8


def test_a_list_in_memory_is_told_what_a_file_is():
    data = [(path, n / 7) for n, path in enumerate(PATHS[:3])] + [("no.jpg", 1)]
    notes = scan(as_data(data)).notes
    assert notes[0].startswith("Left out: 1 of the 4 files that The list as CSV names (missing: ")
    with pytest.raises(PipelineError, match="None of the 2 files that The list as CSV names"):
        scan(as_data(["x.jpg", "y.jpg"]))


@pytest.mark.parametrize(
    "data",
    [
        b"a", {"a": 1}, {"a"}, 3, 0.5, True, np.zeros(3), np.zeros((2, 3, 3)), [3], [None],
        [("a", "b", "train", "g", "x")], [()], [{"path": "a"}], [["a"], ["b", "c"]][:0],
        Image.new("RGB", (2, 2)), [Image.new("RGB", (2, 2))], (PATHS * 2, LABELS * 2), "a\0b",
        object(),
        [("a/1.jpg", "x"), ("a/2.jpg",)], np.array(3), iter(()),
    ],
    ids=lambda data: type(data).__name__,
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_allowed(data):
    with pytest.raises(UsageError, match="DATA "):
        as_data(data)


def test_pictures_as_data_are_told_where_they_go():
    for data in ([Image.new("RGB", (2, 2))], np.zeros((2, 4, 4, 3), np.uint8)):
        with pytest.raises(UsageError, match="Pictures in memory go to TrunkFeatures and predict"):
            as_data(data)


def test_words_and_nothing_stay_what_they_are():
    assert as_data(None) is None
    assert as_data(Path("a") / "b") == "a/b" and as_data(np.str_("digits")) == "digits"


def test_a_large_list_is_read_line_by_line_as_csv_is(tmp_path):
    given = as_data([(path, f"{n}") for n, path in enumerate(PATHS)])
    rows = list(csv.reader(io.StringIO(given.text)))
    assert rows == [["path", "label"], *([path, f"{n}"] for n, path in enumerate(PATHS))]
    assert given == as_data(zip(PATHS, "0123", strict=True)) and str(given) == "LIST.csv"


def test_images_stand_in_sequences_and_in_columns_of_paths():
    for given in (PATHS, tuple(PATHS), FRAME, FRAME[["path"]], FRAME[["path"]].rename(
        columns={"path": 0}), FRAME.path, np.array(PATHS), np.array(PATHS)[:, None], iter(PATHS),
    ):  # fmt: skip
        assert list(images_in(given)) == PATHS
    with pytest.raises(UsageError, match="not one with the columns 'label' and 'x'"):
        images_in(FRAME.rename(columns={"path": "x"})[["label", "x"]])


def test_one_image_is_no_sequence():
    picture = np.zeros((4, 4, 3), np.uint8)
    for given in ("a", Path("a"), b"a", bytearray(1), io.BytesIO(), Image.new("L", (2, 2)), picture,
                  picture[..., 0], 3, None):  # fmt: skip
        assert images_in(given) is None
    assert len(list(images_in(picture[None]))) == 1
