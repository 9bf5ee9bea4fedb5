import csv
import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from fitting import fitted
from tables import make_table

import pipeline
from pipeline.analysis.auditing.audit import COLUMNS, KINDS, find_faults
from pipeline.cli import main
from pipeline.errors import PipelineError
from pipeline.heads.metrics import softmax
from pipeline.heads.predictions import OUT_OF_FOLD, OutOfFold
from pipeline.store.cache import Cache

COUNT = {"train": 60, "val": 24, "test": 24, "dim": 32, "apart": 3.0}


def changed(**changes):
    """Return a table with faults: arrays are given by row."""
    made = make_table(**COUNT)
    x, labels, digests = made.features.copy(), made.labels.copy(), list(made.digests)
    for row, values in changes.get("features", {}).items():
        x[row] = values(x)
    for row, label in changes.get("labels", {}).items():
        labels[row] = label
    for row, other in changes.get("copies", {}).items():
        digests[row], x[row] = digests[other], x[other]
    given = {"names": made.classes, "splits": made.splits, "digests": tuple(digests)}
    return make_table(**{**COUNT, **given, "features": x, "labels": labels})


def test_copies_are_told_together_those_across_splits_and_of_two_labels_first():
    # 63 and 3 are of one class; so are 9 and 12; 10 and 12 are not
    done = find_faults(changed(copies={63: 3, 90: 3, 9: 12, 64: 5}, labels={64: 0}))
    found = done.of_kind("copy")
    assert [one.rows for one in found] == [(5, 64), (3, 63, 90), (9, 12)]
    assert found[0].reason == (
        "The same file 2 times in train and val: what is measured there is not new; labelled "
        "'class002' and 'class000', of which one at most is right."
    )
    assert found[1].reason.startswith("The same file 3 times in train, val and test")
    assert found[2].reason == "The same file 2 times."


def test_near_duplicates_are_told_once_within_and_across_splits():
    near = np.random.default_rng(0).normal(0, 0.02, 32)
    done = find_faults(changed(features={70: lambda x: x[5] + near, 20: lambda x: x[8] - near}))
    assert [one.rows for one in done.of_kind("near-duplicate")] == [(5, 70), (8, 20)]
    assert "in train and val" in done.of_kind("near-duplicate")[0].reason
    assert not done.of_kind("copy")


def test_a_copy_of_a_near_duplicate_is_no_second_finding():
    near = np.random.default_rng(0).normal(0, 0.02, 32)
    done = find_faults(changed(features={70: lambda x: x[5] + near}, copies={80: 70}))
    assert len(done.of_kind("near-duplicate")) == len(done.of_kind("copy")) == 1


def test_changed_labels_are_suspect_with_a_suggestion_and_a_reason():
    done = find_faults(changed(labels={10: 0, 71: 0}))  # both were class 1 and 2
    first = done.of_kind("suspect-label")[:2]
    assert {one.rows: one.suggested for one in first} == {(10,): 1, (71,): 2}
    assert "Looks like 'class00" in first[0].reason and "'class000'" in first[0].reason
    assert 0.5 < first[1].score <= first[0].score <= 1


def test_a_changed_label_is_found_although_its_copy_has_it_too():
    done = find_faults(changed(copies={70: 10}, labels={10: 0, 70: 0}))
    assert {one.rows for one in done.of_kind("suspect-label")[:2]} == {(10,), (70,)}


def test_an_image_far_from_all_is_an_outlier():
    done = find_faults(
        changed(features={33: lambda x: 100 * np.random.default_rng(0).normal(0, 1, 32)})
    )
    found = done.of_kind("outlier")[0]
    assert found.rows == (33,) and "times as far from the most alike of 'class000'" in found.reason


def test_findings_come_by_kind_and_sorted():
    done = find_faults(changed(copies={63: 3, 9: 12}, labels={10: 0, 40: 0, 71: 0}))
    order = [KINDS.index(one.kind) for one in done.findings]
    assert order == sorted(order)
    for kind in ("suspect-label", "outlier"):
        scores = [one.score for one in done.of_kind(kind)]
        assert scores == sorted(scores, reverse=True)


def test_without_labels_copies_and_outliers_are_still_looked_for():
    x = np.random.default_rng(0).normal(0, 1, (40, 16)) + 5
    x[3] = -x[3] * 3
    x[30] = x[2]
    digests = list(make_table(features=x, labels=np.full(40, -1), splits=("",) * 40).digests)
    digests[30] = digests[2]
    table = make_table(
        features=x, labels=np.full(40, -1), splits=("",) * 40, digests=tuple(digests)
    )
    done = find_faults(table)
    assert [one.rows for one in done.of_kind("copy")] == [(2, 30)]
    assert done.of_kind("outlier")[0].rows == (3,)
    assert not done.of_kind("suspect-label") and "Wrong labels were not looked for" in done.notes[0]


def test_classes_of_one_image_are_told_not_judged():
    done = find_faults(changed(labels={5: 1, 8: 1} | dict.fromkeys(range(2, 108, 3), 0) | {2: 2}))
    assert "The labels of 1 image could not be judged" in done.notes[0]
    assert not any(one.rows == (2,) for one in done.of_kind("suspect-label"))


def test_features_that_are_no_numbers_are_refused():
    with pytest.raises(PipelineError, match="not finite"):
        find_faults(changed(features={3: lambda x: np.nan}))


def test_the_list_says_what_each_finding_is_beside_what_it_was_found():
    done = find_faults(changed(copies={63: 3, 90: 3}, labels={10: 0}))
    lines = list(csv.DictReader(io.StringIO(done.to_csv().decode())))
    assert tuple(lines[0]) == COLUMNS
    path = done.table.paths
    assert [(one["path"], one["other_path"]) for one in lines[:2]] == [
        (path[63], path[3]), (path[90], path[3]),
    ]  # fmt: skip
    assert (lines[0]["split"], lines[0]["other_split"]) == ("val", "train")
    suspect = next(one for one in lines if one["kind"] == "suspect-label")
    assert (suspect["path"], suspect["label"], suspect["suggested"]) == (
        path[10], "class000", "class001",
    )  # fmt: skip
    assert suspect["other_path"] == "" and float(suspect["score"]) > 0.5


@pytest.fixture
def cache(tmp_path):
    store = Cache.at(tmp_path / "cache")
    made = changed(copies={63: 3}, labels={10: 0})
    table = made.write(store.tables / "clouds--fake--0123456789ab.h5")
    store.set_current(table.path)
    return store


def call(cache, *words):
    return CliRunner().invoke(main, ["audit", "--cache", str(cache.root), *map(str, words)])


def test_the_command_prints_a_table_and_where_the_list_is(cache):
    done = call(cache)
    assert done.exit_code == 0, done.output
    for part in ("Copies  1\n", "Near-duplicates  none", "Suspect labels  ", "Outliers  "):
        assert part in done.stdout
    place = cache.tables / "clouds--fake--0123456789ab.audit.csv"
    assert f"List     {place}" in done.stdout and place.read_text().startswith("kind,path,")
    assert "train" in done.stdout and "The same file 2 times in train and val" in done.stdout


def test_json_is_one_object_and_output_a_file_of_ones_own(cache, tmp_path):
    done = call(cache, "--json", "-o", tmp_path / "mine.csv")
    values = json.loads(done.stdout)
    assert done.stderr == "" and values["counts"]["copy"] == 1 and values["images"] == 108
    assert set(values["findings"][0]) == set(COLUMNS)
    assert values["csv"] == str(tmp_path / "mine.csv") and (tmp_path / "mine.csv").exists()


def test_what_a_name_holds_is_shown_on_its_own_line_and_moves_no_cursor(tmp_path):
    made = make_table(**COUNT, names=("a\nb", "\x1b[2Jred", "n\udce9"))
    digests = list(made.digests)
    digests[63] = digests[3]
    store = Cache.at(tmp_path / "cache")
    table = make_table(**COUNT, names=made.classes, digests=tuple(digests))
    store.set_current(table.write(store.tables / "odd--fake--0123456789ab.h5").path)
    done = call(store)
    assert done.exit_code == 0 and "\x1b" not in done.stdout
    assert "a�b/0003.jpg" in done.stdout


def test_the_public_function_takes_a_table():
    assert pipeline.audit(changed(copies={63: 3})).of_kind("copy")


@pytest.fixture
def kept(tmp_path):
    """Return a table with wrong labels in train and val, in a cache, and that cache."""
    cache = Cache.at(tmp_path / "cache")
    made = changed(labels={10: 0, 71: 0}).write(cache.tables / "t--fake--0123456789ab.h5")
    return made, cache


def never(*_, **__):
    raise AssertionError("it was computed again")


def test_what_a_head_kept_of_its_folds_judges_the_labels_and_nothing_is_computed_again(
    kept, monkeypatch
):
    table, cache = kept
    fitted(table, cache, "ridge")
    head = fitted(table, cache, "linear").heads[0]
    monkeypatch.setattr("pipeline.analysis.auditing.noise.search", never)
    done = pipeline.audit(table, cache=cache.root)
    assert done.notes == (
        f"Labels were judged by what the head {head.id} (linear) said of images that it had not "
        "seen.",
    )
    scores = {one.rows[0]: one.score for one in done.of_kind("suspect-label")}
    assert set([*scores][:2]) == {10, 71}
    held = OutOfFold.read(head.folder / OUT_OF_FOLD)
    place = held.rows.tolist().index(10)
    temperature = head.info.calibration_temperature
    assert scores[10] == pytest.approx(1 - softmax(held.logits, temperature)[place, 0], abs=1e-9)
    of_val = softmax(head.linear.scores(table.features[[71]]), temperature)
    assert scores[71] == pytest.approx(1 - of_val[0, 0], abs=2e-6)  # predictions have six digits


@pytest.mark.parametrize(
    "options",
    [
        {"clf": "ridge"},
        {"clf": "linear", "class_weight": "balanced"},
        {"clf": "linear", "shots": 10},
        {"clf": "linear", "select_on": "val"},
    ],
    ids=str,
)
def test_a_head_that_is_no_judge_of_labels_is_passed_over(kept, options):
    table, cache = kept
    want = pipeline.audit(table, cache=cache.root)
    fitted(table, cache, **options)
    found = pipeline.audit(table, cache=cache.root)
    assert found.findings == want.findings and found.notes == want.notes == ()


def test_a_head_judges_only_where_no_copy_of_an_image_was_fitted_on(tmp_path):
    cache = Cache.at(tmp_path / "cache")
    near = np.random.default_rng(0).normal(0, 0.02, 32)
    for name, faults in {
        "files": {"copies": {63: 3}},
        "pictures": {"features": {70: lambda x: x[5] + near}},
    }.items():
        table = changed(**faults).write(cache.tables / f"{name}--fake--0123456789ab.h5")
        fitted(table, cache, "linear")
        assert pipeline.audit(table, cache=cache.root).notes == (), name
    within = changed(copies={9: 12}, features={20: lambda x: x[8] + near})
    within = within.write(cache.tables / "within--fake--0123456789ab.h5")
    head = fitted(within, cache, "linear").heads[0]
    assert head.id in pipeline.audit(within, cache=cache.root).notes[0]


def test_a_head_whose_scores_are_damaged_judges_nothing(kept):
    table, cache = kept
    head = fitted(table, cache, "linear").heads[0]
    for content in (b"", (head.folder / OUT_OF_FOLD).read_bytes()[:-9]):
        (head.folder / OUT_OF_FOLD).write_bytes(content)
        assert pipeline.audit(table, cache=cache.root).notes == ()
