import numpy as np
import pytest
from fitting import fitted
from photos import stored
from tables import make_table

from pipeline.errors import UsageError
from pipeline.heads.resolve import find
from pipeline.heads.uncertainty import McNemar, mcnemar
from pipeline.inference.options import EvaluateOptions
from pipeline.inference.paired_test import Compared, compare_predictors
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD, MODEL


def test_the_test_is_the_binomial_one_on_images_that_one_alone_has_right():
    first = np.array([True] * 90 + [False] * 10 + [True] * 9 + [False])
    second = np.array([True] * 90 + [False] * 10 + [False] * 9 + [True])
    found = mcnemar(first, second)
    assert (found.first_alone, found.second_alone) == (9, 1)
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(second, first).p == found.p
    assert mcnemar(first, first) == McNemar(0, 0, 1.0)


@pytest.mark.parametrize(
    ("one", "other", "p", "text"),
    [
        (9, 1, 0.021, "p = 0.021. The difference is more than chance: lda is better."),
        (1, 9, 0.021, "p = 0.021. The difference is more than chance: knn is better."),
        (3, 2, 1.0, "3 right by lda alone, 2 by knn alone; exact McNemar p = 1.000. The "
                    "difference may well be chance."),
        (40, 0, 2e-12, "p = 2.0e-12. The difference is more than chance"),
        (0, 0, 1.0, "right on the same images: nothing tells them apart."),
    ],
)  # fmt: skip
def test_the_sentence_says_whether_it_is_more_than_chance(one, other, p, text):
    found = Compared("val", 100, (0.9, 0.8), McNemar(one, other, p)).sentence(("lda", "knn"))
    assert found.startswith("On val, 100 images: lda 0.900, knn 0.800. ") and text in found


def test_images_without_a_label_are_left_out_and_told(tmp_path):
    cache = Cache.at(tmp_path / "cache")
    labels = np.arange(90) % 3
    labels[[70, 80]] = -1
    table = make_table(tmp_path / "t.h5", train=60, val=30, dim=16, labels=labels)
    fitted(table, cache, "lda,knn")
    one, other = (find(cache, folder) for folder in HEAD.folders(cache.root))
    found = compare_predictors(one, other, None, EvaluateOptions(), cache)
    assert found.splits[0].images == 28
    assert "Left out 2 images without a label." in found.notes


def test_two_heads_are_compared_on_the_same_images_of_the_table(tmp_path):
    cache = Cache.at(tmp_path / "cache")
    table = make_table(tmp_path / "t.h5", train=60, val=60, test=90, dim=16, apart=0.7)
    fitted(table, cache, "lda,knn")
    lda, knn = (
        next(f for f in HEAD.folders(cache.root) if HEAD.read(f).clf == c) for c in ("lda", "knn")
    )
    found = compare_predictors(find(cache, lda), find(cache, knn), None, EvaluateOptions(), cache)
    assert [one.split for one in found.splits] == ["val", "test"]
    for one in found.splits:
        rights = []
        for folder in (lda, knn):
            _, named, _ = stored(folder, one.split)
            truth = [table.classes[table.labels[row]] for row in table.rows(one.split)]
            rights.append(np.array(named) == np.array(truth))
        assert one.accuracies == pytest.approx([right.mean() for right in rights])
        assert one.test == mcnemar(*rights)
    assert found.names == (f"lda {lda.name[:6]}", f"knn {knn.name[:6]}")
    assert set(found.to_json()["splits"]["val"]) >= {"p", "first_alone", "sentence"}


def test_no_conclusion_is_drawn_from_images_that_chose_one_of_the_two(tmp_path):
    cache = Cache.at(tmp_path / "cache")
    table = make_table(tmp_path / "t.h5", train=60, val=60, test=90, dim=16, apart=0.7)
    fitted(table, cache, "lda,knn", select_on="val")
    one, other = (find(cache, folder) for folder in HEAD.folders(cache.root))
    val, test = compare_predictors(one, other, None, EvaluateOptions(), cache).splits
    assert f"60 images of these chose the settings of head {one.folder.name[:6]}" in val.chosen_by
    said = val.to_json(("a", "b"))
    assert "No conclusion is drawn" in said["sentence"] and said["more_than_chance"] is None
    assert test.chosen_by == "" and "No conclusion" not in test.sentence(("a", "b"))


def test_a_head_and_a_model_are_compared_by_features_and_by_images(modelled):
    cache = Cache.at(modelled / "cache")
    head, model = (find(cache, kind.folders(cache.root)[0]) for kind in (HEAD, MODEL))
    (found,) = compare_predictors(head, model, None, EvaluateOptions(split="val"), cache).splits
    assert found.images == 24
    truth = np.array([path.split("/")[1] for path in stored(head.folder)[0]])
    rights = [np.array(stored(one.folder)[1]) == truth for one in (head, model)]
    assert found.accuracies == pytest.approx([right.mean() for right in rights], abs=1 / 24)


def test_classes_that_one_of_them_does_not_know_are_left_out(tmp_path):
    cache = Cache.at(tmp_path / "cache")
    wide = make_table(tmp_path / "w.h5", train=60, val=60, names=("a", "b", "c"))
    labels = np.arange(60) % 2
    narrow = make_table(features=wide.features[:60], labels=labels, classes=2, names=("c", "d"))
    first = fitted(wide, cache).heads[0]
    second = fitted(narrow, cache).heads[0]
    done = compare_predictors(find(cache, first), find(cache, second), str(wide.path),
                   EvaluateOptions(split="val"), cache)  # fmt: skip
    assert done.splits[0].images == 20
    assert "Left out, since one of the two does not know a and b." in done.notes
    other = make_table(features=wide.features[:60], labels=labels, classes=2, names=("x", "y"))
    third = fitted(other, cache).heads[0]
    with pytest.raises(Exception, match="Classes match by name"):
        compare_predictors(
            find(cache, first), find(cache, third), str(wide.path), EvaluateOptions(), cache
        )
    assert UsageError is not None
