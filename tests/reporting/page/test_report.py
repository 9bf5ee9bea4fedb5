import json
import re
import shutil
import sys

import numpy as np
import pytest
from advising import advice
from fitting import fitted
from html_page import check_page, record_of, text_of
from pictured import pictured
from tables import make_table
from threadpoolctl import threadpool_limits

from pipeline.errors import PipelineError
from pipeline.images.decoding import probe
from pipeline.images.views import numbers
from pipeline.reporting.options import ReportOptions
from pipeline.reporting.page import album, contents
from pipeline.reporting.page import record as record_module
from pipeline.reporting.page.report import current, write_report
from pipeline.store import advice as kept
from pipeline.store.cache import Cache
from pipeline.store.in_flight import InFlightJournal
from pipeline.store.results import HEAD, MODEL


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture
def photos(cache, tmp_path):
    return pictured(cache, tmp_path / "photos")


def report(cache, table=None, asked=None, **options):
    """Write a page, check what holds for every page, and return what was done and the page."""
    done = write_report(table, asked, ReportOptions(**options), cache)
    html = done.path.read_text()
    check_page(html)
    return done, html


def test_a_table_with_a_head_is_shown_whole(cache, photos):
    (head,) = fitted(photos, cache, "lda").heads
    done, html = report(cache)
    assert done.path == cache.root / "reports" / f"{photos.path.stem}.html"
    assert done.bytes == done.path.stat().st_size
    assert not done.notes
    shown = text_of(html)
    for split in ("val", "test"):
        accuracy = head.info.metrics[split].accuracy
        assert f"{accuracy:.3f}" in shown
    assert f"head {head.id}" in shown
    record = record_of(html)
    assert record["classes"] == list(photos.classes)
    assert record["images"]["path"] == list(photos.paths)
    assert record["images"]["label"] == photos.labels.tolist()
    assert len(record["pictures"]) == len(set(photos.digests)) + 3 * 5  # and five views a class


def test_predictions_stand_on_their_images(cache, photos):
    (head,) = fitted(photos, cache, "lda").heads
    images = record_of(report(cache)[1])["images"]
    for split in ("val", "test"):
        rows = photos.rows(split)
        said = head.predict(np.asarray(photos.features[rows]))
        assert [photos.classes[images["predicted"][row]] for row in rows] == said.tolist()
    train = photos.rows("train")
    assert {images["predicted"][row] for row in train} == {-1}


def test_the_matrix_counts_what_the_head_was_scored_on(cache, photos):
    (head,) = fitted(photos, cache, "lda").heads
    _, html = report(cache)
    confusion = head.info.metrics["test"].confusion
    cells = re.findall(
        r'data-label="(\d+)" data-predicted="(\d+)"[^>]*>([\d,]+)<',
        html[html.index('data-split="test"') :],
    )
    assert {(int(a), int(b)): int(n) for a, b, n in cells} == {
        (a, b): n for a, row in enumerate(confusion) for b, n in enumerate(row) if n
    }


def test_a_table_without_a_head_says_so_in_its_place(cache, photos):
    done, html = report(cache)
    assert done.artefact is None
    shown = text_of(html)
    assert "No head has been fitted on this table." in shown
    assert "No model has been fine-tuned" in shown
    assert "There are no predictions to look at" in shown
    assert record_of(html)["layouts"]


def test_a_table_without_val_and_test_has_no_mistakes_to_look_at(cache, tmp_path):
    table = pictured(cache, tmp_path / "photos", splits=("train",))
    fitted(table, cache, "lda")
    _, html = report(cache)
    assert "the table has neither val nor test" in text_of(html)


def test_one_class_is_no_reason_to_fail(cache, tmp_path):
    pictured(cache, tmp_path / "photos", classes=("ants",), count=12)
    _, html = report(cache)
    assert "There is only one class" in text_of(html)


def test_images_without_labels_are_shown(cache, tmp_path):
    table = pictured(cache, tmp_path / "photos", count=12)
    bare = make_table(
        cache.tables / "bare--fake--x.h5",
        features=np.asarray(table.features),
        labels=[-1] * 12,
        splits=("",) * 12,
        digests=table.digests,
        names=(),
    )
    done, html = report(cache, bare)
    assert "12 images have no label." in text_of(html)
    assert any("have moved, give --data" in note for note in done.notes)


def test_images_that_moved_leave_their_reasons_and_are_found_again(cache, photos, tmp_path):
    fitted(photos, cache, "lda")
    (tmp_path / "photos").rename(tmp_path / "moved")
    done, html = report(cache)
    assert record_of(html)["pictures"] == []
    assert "The pictures of 60 images are not where they were" in text_of(html)
    assert re.match(r"60 images could not be shown \(\d{4}\.png: no such file\)", done.notes[0])
    done, html = report(cache, data=tmp_path / "moved")
    assert not done.notes
    assert len(record_of(html)["pictures"]) == 75


def test_an_image_that_changed_is_not_shown_as_what_it_was(cache, photos, tmp_path):
    (tmp_path / "photos" / "0007.png").write_bytes((tmp_path / "photos" / "0008.png").read_bytes())
    _, html = report(cache)
    record = record_of(html)
    assert record["missing"] == {"7": "the file has changed"}
    assert record["images"]["picture"][7] == -1


def test_beyond_the_bound_a_sample_is_shown_and_told(cache, photos, monkeypatch):
    monkeypatch.setattr(album, "MOST", 30)
    monkeypatch.setattr(contents, "EACH", 2)
    fitted(photos, cache, "lda")
    done, html = report(cache)
    assert done.shown == 30
    assert "The page holds 30 of 60 images" in done.notes[0]
    assert "The page has room for 30 of the images" in text_of(html)
    record = record_of(html)
    assert len(record["images"]["path"]) == 30
    assert all(len(one["points"]) == 60 for one in record["layouts"])


def test_beyond_the_number_of_pictures_images_have_a_point_alone(cache, photos, monkeypatch):
    monkeypatch.setattr(album, "PICTURES", 20)
    fitted(photos, cache, "lda")
    done, html = report(cache)
    assert (done.shown, done.pictured) == (60, 20)
    assert "It has pictures of 20 images" in text_of(html)
    record = record_of(html)
    assert sum(place >= 0 for place in record["images"]["picture"]) == 20
    assert record["missing"] == {}


def test_the_page_tells_what_it_cost_itself(cache, photos):
    _, html = report(cache)
    assert re.search(r"page\s*audit \d+\.\d s, pictures \d+\.\d s, map \d+\.\d s", text_of(html))


def test_the_list_of_findings_stands_beside_the_page(cache, photos, tmp_path):
    done, html = report(cache, output=tmp_path / "out" / "page.html")
    assert done.path == tmp_path / "out" / "page.html"
    assert done.audit == tmp_path / "out" / "page.audit.csv"
    assert done.audit.read_text().startswith("kind,path,split,label,suggested,other_path")
    assert "page.audit.csv" in text_of(html)


def test_a_head_that_is_named_is_looked_at(cache, photos):
    heads = fitted(photos, cache, "lda,ncm").heads
    for head in heads:
        done, html = report(cache, asked=head.id)
        assert done.artefact.folder == head.folder
        assert f"Of the head {head.id}" in text_of(html)


def test_a_head_of_another_table_is_refused_with_its_table(cache, photos, tmp_path):
    (head,) = fitted(photos, cache, "lda").heads
    other = pictured(cache, tmp_path / "more", count=30, name="more")
    own = head.info.table_id[:12]
    with pytest.raises(PipelineError, match=f"Name its table: pipeline report {own}"):
        write_report(other, head.id, ReportOptions(), cache)


def test_what_was_run_can_be_run_again(cache, photos):
    (head,) = fitted(photos, cache, "lda", seed=3).heads
    shown = text_of(report(cache)[1])
    words = f"pipeline fit-head {photos.table_id[:12]} --clf lda --folds 3 --seed 3"
    assert "pipeline extract x" in shown and words in shown
    for part in (photos.table_id, photos.fingerprint, head.info.versions["numpy"]):
        assert part in shown


def test_a_damaged_head_is_told_and_not_shown(cache, photos):
    one, other = fitted(photos, cache, "lda,ncm").heads
    (one.folder / "head.json").write_text("{")
    done, html = report(cache)
    assert done.artefact.folder == other.folder
    assert f"Left out: The head {one.folder} is damaged" in text_of(html)
    assert str(one.folder) in done.notes[0]


def test_without_advice_the_section_names_the_command(cache, photos):
    done, html = report(cache)
    assert f"Not asked yet: pipeline advise {photos.table_id[:12]} measures" in text_of(html)
    assert not done.notes and "pipeline advise" not in html[html.index('id="run"') :]


def test_advice_that_is_kept_is_shown_with_the_commands_of_today(cache, photos):
    kept.write(cache, advice(photos.table_id))
    fitted(photos, cache, "lda")
    shown = text_of(report(cache)[1])
    for text in (
        "Quadrant: small, similar.", "Small: 60 training images.", "2024-05-06 07:08 UTC",
        "cs231n: https://cs231n.github.io/", "71.0% [64.0%, 77.0%]", "A note of a file\ufffd.",
        "forecast 0.930 [0.850, 0.980] with 120", "from half of the images, predicted 0.930",
        "Since then 1 head came: the advice is older", "abcdef012345", "+5.0",
        f"pipeline advise {photos.table_id[:12]} --seed 5",
    ):  # fmt: skip
        assert text in shown, text
    assert "Not asked yet" not in shown
    assert "pipeline fit-head --clf all" in shown and "fit-head gone" not in shown


def test_advice_that_is_damaged_is_noted_and_counts_as_not_asked(cache, photos):
    kept.write(cache, advice(photos.table_id))
    path = kept.path_of(cache, photos.table_id)
    path.write_text(path.read_text().replace("Fit a head", "Buy a head"))
    done, html = report(cache)
    (note,) = done.notes
    assert note.startswith(f"The advice {path} is damaged")
    assert note in text_of(html) and "Not asked yet" in text_of(html)


HOSTILE = '</script><script>boom()</script><img src=x onerror="boom()">'


def test_markup_in_names_is_text(cache, tmp_path):
    names = (HOSTILE, "b\n\t&amp;", "c\udcff")
    files = ("<b onclick=boom()>.png", "\udcfe\n.png", "'\"&lt;.png")
    table = pictured(cache, tmp_path / "photos", classes=names, files=files, name="<i>photos")
    listing = table.path.with_name(f"{table.path.stem}.left-out.csv")
    listing.write_bytes(b'path,kind,reason\n"<u onload=x>\xff",bad image,"<s>why</s>"\n')
    fitted(table, cache, "lda")
    kept.write(cache, advice(table.table_id, notes=[HOSTILE], trunk=HOSTILE))
    done, html = report(cache)
    assert "<img src=x" not in html and "<b onclick" not in html and "<script>boom" not in html
    record = record_of(html)
    assert record["classes"] == [HOSTILE, "b\n\t&amp;", "c\ufffd"]
    assert record["images"]["path"][:3] == [files[0], "\ufffd\n.png", files[2]]
    shown = text_of(html)
    for text in (HOSTILE, "b\n\t&amp;", "<u onload=x>\ufffd", "<s>why</s>", "<i>photos"):
        assert text in shown
    assert json.loads(json.dumps(done.to_json()))["images"] == 60


@pytest.mark.parametrize(("policy", "views"), [("shift", 4), ("mirror", 1), ("none", 0)])
def test_the_strips_are_of_the_policy_that_the_best_model_learned_from(
    modelled, tmp_path, monkeypatch, policy, views
):
    shutil.copytree(modelled / "cache", tmp_path / "cache")
    cache = Cache.at(tmp_path / "cache")
    (folder,) = MODEL.folders(cache.root)
    info = json.loads((folder / "model.json").read_text())
    info["augmentation"]["policy"] = policy
    (folder / "model.json").write_text(json.dumps(info))
    drawn = set()
    real = record_module.views

    def noting(files, *args, **options):
        wanted = list(files)
        drawn.update(number for _, _, number in wanted)
        return real(iter(wanted), *args, **options)

    monkeypatch.setattr(record_module, "views", noting)
    _, html = report(cache, data=modelled / "photos", output=tmp_path / "page.html")
    assert drawn == {0, *numbers(policy, 4)} and len(drawn) == 1 + views
    of_policy = f"of the policy {policy}, which the"
    said = "learned from no augmented views" if policy == "none" else of_policy
    assert said in " ".join(text_of(html).split())


def test_a_model_is_shown_beside_its_head_with_its_curve(modelled, tmp_path):
    cache = Cache.at(modelled / "cache")
    done, html = report(cache, data=modelled / "photos", output=tmp_path / "page.html")
    shown = text_of(html)
    assert "Learning curves" in shown and "kept: epoch" in html
    assert re.search(r"fine-tuning\s*[0-9a-f]{12}: activations of the frozen part", shown)
    assert re.search(r"pipeline finetune [0-9a-f]{12} --unfreeze layer4 .*--epochs 2", shown)
    assert re.search(r"48 images, \d+ passes a second", shown)
    (note,) = done.notes
    assert note.startswith("Labels were judged by what the head ") and note in shown


def test_a_page_is_current_until_what_it_shows_changes(cache, photos, tmp_path):
    assert current(photos, cache) is None
    fitted(photos, cache, "lda")
    done, _ = report(cache)
    assert current(photos, cache) == done.path
    done.audit.unlink()
    assert current(photos, cache) is None
    report(cache)
    fitted(photos, cache, "ncm")  # one more head
    assert current(photos, cache) is None
    report(cache)
    assert current(photos, cache) == done.path
    done.path.write_text("<!doctype html>")  # somebody's page
    assert current(photos, cache) is None
    done.path.write_bytes(b"")
    assert current(photos, cache) is None


def test_a_page_that_lacks_pictures_is_never_current(cache, photos, tmp_path):
    fitted(photos, cache, "lda")
    (tmp_path / "photos").rename(tmp_path / "moved")
    report(cache)
    assert current(photos, cache) is None


def test_a_page_of_one_artefact_is_not_the_one_of_the_best(cache, photos):
    fitted(photos, cache, "lda,ncm")
    ids = {info.id for info in HEAD.every(cache.root)[0]}
    best, _ = report(cache)
    (other,) = ids - {best.artefact.folder.name}
    report(cache, asked=other)
    assert current(photos, cache) is None


def test_an_image_that_crashed_an_earlier_run_is_looked_at_apart_and_left_out(
    cache, photos, monkeypatch
):
    """The notes of a run that ended suddenly are there, and so is a decoder that always crashes."""
    program = "import os; print('ready', flush=True); os.abort()"
    monkeypatch.setattr(probe, "COMMAND", (sys.executable, "-c", program))
    row = photos.splits.index("test")  # not of a strip of views
    cache.decoding.mkdir()
    (cache.decoding / "1-ab").write_bytes(b"?" + bytes.fromhex(photos.digests[row]))
    done, html = report(cache)
    twins = [at for at, digest in enumerate(photos.digests) if digest == photos.digests[row]]
    assert any("crashes the decoder" in note for note in done.notes)
    missing = record_of(html)["missing"]
    assert missing == {str(at): "crashes the decoder" for at in twins}
    held = InFlightJournal(next(cache.decoding.iterdir()))
    with held:
        assert held.crashing == {bytes.fromhex(photos.digests[row])}
