"""The same images in every form are the same data set, and computed once."""

from pathlib import Path

import numpy as np
import pytest
from packing import FORMS, served
from photos import OPTIONS, paint

import pipeline
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.store.cache import Cache


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Give photos, and a cache with their table and head."""
    root = tmp_path_factory.mktemp("forms")
    paint(root / "photos", each=6)
    table = pipeline.extract(root / "photos", cache=root / "cache", **OPTIONS)
    pipeline.fit_head(table, clf="logreg", cache=root / "cache")
    return root


@pytest.fixture(scope="module")
def packed(work) -> dict[str, str]:
    """Give DATA of every form, web servers included."""
    made = {name: str(make(work / "photos", work)) for name, make in FORMS.items()}
    with served(work) as address, served(work, parts=False) as plain:
        yield made | {
            "web folder": f"{address}/photos",
            "web tar": f"{address}/photos.tar",
            "web tar.gz": f"{address}/photos.tar.gz",
            "web zip": f"{address}/photos.zip",
            "web zip in one piece": f"{plain}/photos.zip",
            "web parquet": f"{address}/photos.parquet",
            "web csv": f"{address}/photos.csv",
            "web saved data set": f"{address}/saved",
        }


EVERY = [
    *FORMS, "web folder", "web tar", "web tar.gz", "web zip", "web zip in one piece", "web parquet",
    "web csv", "web saved data set",
]  # fmt: skip


def extracted(data, work):
    options = ExtractOptions(**OPTIONS)
    return extract_table(data, options, Cache.at(work / "cache"))


@pytest.mark.parametrize("form", EVERY)
def test_a_form_gives_the_rows_of_the_folder_and_computes_nothing(form, packed, work):
    folder = extracted(str(work / "photos"), work)
    done = extracted(packed[form], work)
    table = done.table
    assert (done.extracted, done.reused, done.bad) == (0, 24, ())
    assert table.digests == folder.table.digests
    assert table.labels.tolist() == folder.table.labels.tolist()
    assert (table.classes, table.splits) == (folder.table.classes, folder.table.splits)
    assert table.table_id == folder.table.table_id
    assert np.array_equal(table.features, folder.table.features)


@pytest.mark.parametrize("form", EVERY)
def test_predict_reads_a_form(form, packed, work):
    found = pipeline.predict(packed[form], "logreg", cache=work / "cache")
    assert [one.error for one in found] == [""] * 24


@pytest.mark.parametrize(
    "form", ["tar.gz", "zip", "parquet", "saved data set", "memory", "web zip"]
)
def test_show_and_the_page_read_a_form(form, packed, work, tmp_path):
    table = extracted(packed[form], work).table
    sheet = pipeline.show(table, output=tmp_path / "sheet.png", cache=work / "cache")
    assert Path(sheet).stat().st_size > 1000
    page = pipeline.report(table, output=tmp_path / "page.html", cache=work / "cache")
    text = Path(page).read_text()
    assert "data:image/webp" in text and "no such file" not in text
