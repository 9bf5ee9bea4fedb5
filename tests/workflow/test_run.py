"""The three stages in one: what is reused, where fine-tuning starts, and what it all cost."""

import re
from functools import partial

import pytest
from photos import OPTIONS, Heard, paint

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import compute
from pipeline.finetuning import activations
from pipeline.heads import fit_head
from pipeline.reporting.page.render import seconds
from pipeline.store import timings as kept
from pipeline.workflow.options import SETTINGS, SHARED, STAGES, RunOptions
from pipeline.workflow.run import run_stages

STAGED = {**OPTIONS, "folds": 2, "clf": "logreg", "unfreeze": "layer4", "epochs": 1, "views": 1}
run_stages_alone = partial(pipeline.run, report=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    paint(root / "photos", each=8)
    return run_stages_alone(root / "photos", cache=root / "cache", **STAGED)


def again(done, **options):
    root = done.cache.root.parent
    return run_stages_alone(root / "photos", cache=done.cache.root, **{**STAGED, **options})


def test_it_makes_a_table_a_head_and_a_model(done):
    assert done.table.features.shape == (32, 512)
    assert done.head.info.clf == "logreg" and done.head.info.table_id == done.table.table_id
    assert done.model is not None and done.tuning.info.head == done.head.id
    kind, best = done.best
    assert best == (done.tuning.info.id if done.tuning.info.beats_head else done.head.id)
    assert kind == ("model" if done.tuning.info.beats_head else "head")
    assert done.tuning.info.precision == "fp32"  # one --precision for trunk and training


def test_the_same_again_reuses_every_stage(done, monkeypatch):
    monkeypatch.setattr(compute, "compute_part", None)  # no pass of the trunk or of a part of it
    second = again(done)
    assert second.extraction.extracted == 0 and second.tuning.reused
    assert second.fitting.reused == (done.head.id,)
    assert [cost.passes for cost in second.costs] == [0, 0, 0]
    assert all(cost.saved_seconds > 0 for cost in second.costs)


def test_another_learning_rate_reruns_stage_three_alone_without_a_pass(done, monkeypatch):
    monkeypatch.setattr(compute, "compute_part", None)
    second = again(done, lr=1e-3)
    assert second.extraction.extracted == 0 and second.fitting.reused == (done.head.id,)
    assert not second.tuning.reused and second.tuning.info.activations_computed == 0
    assert second.tuning.info.settings["lr"] == 1e-3
    assert second.costs[2].passes == 0 and second.costs[2].saved_passes > 0


def test_without_unfreeze_it_ends_with_the_heads(done):
    heads = {name: STAGED[name] for name in STAGED.keys() - {"unfreeze", "epochs", "views"}}
    second = run_stages_alone(done.cache.root.parent / "photos", cache=done.cache.root, **heads)
    assert second.tuning is None and second.model is None and len(second.costs) == 2
    assert second.to_json()["finetune"] is None and second.best == ("head", done.head.id)


def test_passes_and_savings_are_what_was_counted_and_measured(tmp_path, monkeypatch):
    paint(tmp_path / "photos", each=8)
    read = []
    real = activations.Cached.batches

    def counting(self, keys, size):
        read.extend(keys if size > 1 else [])  # one by itself is the example for folding
        return real(self, keys, size)

    monkeypatch.setattr(activations.Cached, "batches", counting)
    # what is scored halfway is read a second time and is no further pass
    options = {**STAGED, "epochs": 3, "views": 2, "blend": 0.0}
    first = run_stages_alone(tmp_path / "photos", cache=tmp_path / "c", **options)
    info, memo = first.tuning.info, first.cache.memo
    assert info.uses == len(read)
    features, heads, tuning = first.costs
    assert (features.passes, features.saved_passes, features.saved_seconds) == (32, 0, 0)
    assert (heads.passes, heads.saved_seconds) == (0, 0)
    train, chose, val = info.train_images, 16 - info.train_images, 16
    assert tuning.passes == info.activations_computed == train * 3 + chose + val
    assert tuning.saved_passes == len(read) - tuning.passes
    each = info.seconds["activations"] / tuning.passes
    assert tuning.saved_seconds == pytest.approx(tuning.saved_passes * each)
    second = run_stages_alone(tmp_path / "photos", cache=tmp_path / "c", **options)
    features, heads, tuning = second.costs
    assert features.saved_passes == 32
    assert features.saved_seconds == pytest.approx(32 * kept.rate(memo, first.table.fingerprint))
    assert heads.saved_seconds == first.head.info.seconds
    assert tuning.saved_passes == len(read)
    memo.unlink()  # may be lost: then what the rows took is not known any more
    third = run_stages_alone(tmp_path / "photos", cache=tmp_path / "c", **options)
    assert third.costs[0].saved_seconds is None and third.costs[0].saved_passes == 32
    assert third.costs[2].saved_seconds == pytest.approx(sum(info.seconds.values()))


def test_the_page_tells_what_the_run_did_and_both_count_views(tmp_path):
    paint(tmp_path / "photos", each=8)
    done = pipeline.run(tmp_path / "photos", cache=tmp_path / "c", **{**STAGED, "extract_views": 2})
    features, heads, tuning, page = done.costs
    assert done.extraction.views_computed == 32
    assert (features.passes, features.saved_passes) == (32 + 32, 0)
    assert (page.stage, page.passes) == ("page", 0) and page.seconds >= done.page.seconds > 0
    assert sum(cost.seconds for cost in done.costs) <= done.seconds
    told = re.findall(
        r'<th scope="row">(features|heads|fine-tuning)</th><td>.*?</td>'
        + 4 * r'<td class="number">(.*?)</td>',
        done.page.path.read_text(),
    )
    same = [
        (cost.stage, f"{cost.passes:,}", f"{cost.saved_passes:,}", seconds(cost.saved_seconds))
        for cost in (features, heads, tuning)
    ]
    assert [(stage, *rest) for stage, _, *rest in told] == same
    again = pipeline.run(
        tmp_path / "photos", cache=tmp_path / "c", **{**STAGED, "extract_views": 2}
    )
    assert again.page.seconds is None and again.costs[0].saved_passes == 64
    rate = kept.rate(again.cache.memo, again.table.fingerprint)
    assert again.costs[0].saved_seconds == pytest.approx(64 * rate)


def test_it_starts_from_the_best_head_fitted_by_log_loss_and_says_so(done):
    second = again(done, clf="lda,knn,logreg")
    assert second.tuning.info.head_clf == "logreg"
    if second.head.info.clf != "logreg":
        assert any("not from the best head" in note for note in second.tuning.notes)
    ridge = again(done, clf="knn,ridge", epochs=2)
    assert ridge.tuning.info.head_clf == "ridge"


def test_a_linear_head_that_failed_leaves_nothing_to_start_from(done, monkeypatch):
    real = fit_head._fit

    def failing(name, *args):
        if name == "logreg":
            raise PipelineError("no good")
        return real(name, *args)

    monkeypatch.setattr(fit_head, "_fit", failing)
    with pytest.raises(PipelineError, match=r"no linear head.*logreg could not be fitted: no good"):
        again(done, clf="logreg,knn", seed=5)


def test_each_stage_is_told_with_its_number(done):
    heard = Heard()

    class Reporter:
        def __enter__(self):
            return heard

        def __exit__(self, *error):
            pass

    ended = []
    recipe = RunOptions.of({**STAGED, "report": False})
    data = done.cache.root.parent / "photos"
    run_stages(data, recipe, done.cache, reporter=Reporter, ended=ended.append)
    titles = [sentence for sentence in heard.said if sentence.startswith("Stage ")]
    assert [title[:10] for title in titles] == ["Stage 1 of", "Stage 2 of", "Stage 3 of"]
    assert [type(stage).__name__ for stage in ended] == ["Extraction", "Fitting", "Tuning"]


def test_every_option_of_every_stage_has_one_name_in_run():
    places = [place for of in SETTINGS.values() for place in of]
    fields = [(s, name) for s, kind in STAGES.items() for name in kind.__dataclass_fields__]
    left = {("finetune", "data"), ("finetune", "resume")}
    assert sorted(places) == sorted(set(fields) - left)
    for name, of in SETTINGS.items():
        assert len(of) == 1 or name in SHARED
    assert SETTINGS["batch_size"] == (("finetune", "batch_size"),)
    assert SETTINGS["extract_batch_size"] == (("extract", "batch_size"),)
    assert SETTINGS["select_on"] == (("finetune", "select_on"),)
    assert SETTINGS["fit_head_select_on"] == (("fit-head", "select_on"),)


def test_options_reach_their_stages():
    recipe = RunOptions.of(
        {"seed": 3, "precision": "fp32", "batch_size": 8, "extract_batch_size": 2, "unfreeze": "2",
         "fit_head_select_on": "val", "select_on": "train-part", "device": "cpu"}
    )  # fmt: skip
    assert recipe.extract.seed == recipe.fit_head.seed == recipe.finetune.seed == 3
    assert (recipe.extract.batch_size, recipe.finetune.batch_size) == (2, 8)
    assert (recipe.fit_head.select_on, recipe.finetune.select_on) == ("val", "train-part")
    assert recipe.finetune.unfreeze == "2" and recipe.finetune.resume is None
    assert recipe.extract.device == recipe.finetune.device == "cpu"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": 1e-3, "epochs": 2}, r"--epochs, --lr are of stage three.*add --unfreeze layer4"),
        ({"unfreeze": "layer4", "lr": 0.0}, r"--lr 0 is not above 0"),
        ({"unfreeze": "layer4", "clf": "knn,mlp"}, r"knn, mlp are none: add logreg to --clf"),
        ({"clf": "logrg"}, r"Did you mean logreg"),
        ({"pool": "mean"}, r"--pool 'mean' is not one of"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_stage(tmp_path, options, text):
    with pytest.raises(UsageError, match=text):
        run_stages_alone(tmp_path / "nowhere", cache=tmp_path / "c", **options)
