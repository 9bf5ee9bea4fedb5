"""Images that vanish, or whose activations are not finite, while a network learns from them."""

import numpy as np
import pytest
from photos import Heard, tune

from pipeline.errors import PipelineError
from pipeline.extraction import engines, writer
from pipeline.finetuning import bench, boundary, training_run
from pipeline.finetuning.activations import LostImages
from pipeline.trunks.engines.finite import reason


def first_lost(monkeypatch, work, when):
    """Remove a training image when the activations are about to be computed or an epoch begins."""
    target = work / "photos" / "train" / "red" / "03.png"
    if when == "activations":
        real = boundary.fill

        def fill(*args, **options):
            target.unlink(missing_ok=True)
            return real(*args, **options)

        monkeypatch.setattr(boundary, "fill", fill)
    else:
        epoch = training_run._epoch

        def second(tuner, *args):
            if len(tuner.history) == 2:
                target.unlink(missing_ok=True)
            return epoch(tuner, *args)

        monkeypatch.setattr(training_run, "_epoch", second)


@pytest.mark.parametrize(("when", "live"), [("activations", False), ("epoch", True)])
def test_an_image_that_vanishes_is_told_and_the_others_train(work, monkeypatch, when, live):
    first_lost(monkeypatch, work, when)
    heard = Heard()
    done = tune(work, heard=heard, live=live, views=None, augment="none")
    assert done.info.finished and done.info.epochs == 2
    total = done.info.train_images + done.info.metrics["train-part"].model.images
    assert total == 23
    assert any(
        "1 image could not be used" in note and "'train/red/03.png' (vanished" in note
        for note in done.notes
    )
    assert done.info.notes == done.notes
    if live:
        assert "Going on after epoch 1." in heard.said
    monkeypatch.undo()
    assert tune(work, live=live, views=None, augment="none").reused


def test_an_activation_that_is_not_finite_costs_its_image(work, monkeypatch):
    real, seen = writer.ShardWriter.take, []

    def take(self, computed, keys, *given):
        if not seen:
            computed = computed.copy()
            computed[1].flat[0] = np.inf
            seen.append(keys[1])
        return real(self, computed, keys, *given)

    monkeypatch.setattr(writer.ShardWriter, "take", take)
    done = tune(work, views=None, augment="none")
    images = sum(one.model.images for one in done.info.metrics.values()) + done.info.train_images
    assert images == 47 and any(reason("fp32") in note for note in done.notes)
    monkeypatch.undo()
    again = tune(work, views=None, augment="none", seed=1)  # it is remembered as any bad image
    assert any(reason("fp32") in note for note in again.notes)


def test_live_activations_that_are_not_finite_do_not_blame_the_learning_rate(work, monkeypatch):
    real = engines.make_engine

    class Poisoned:
        def __init__(self, engine):
            self.engine, self.notes, self.name = engine, engine.notes, engine.name
            self.precision = engine.precision

        def run(self, batches):
            taken = []

            def each():
                for batch in batches:
                    taken.append(batch)
                    yield batch

            for rows in self.engine.run(each()):
                for n, crop in enumerate(taken.pop(0)):
                    if not marked:
                        marked.append(crop.clone())
                    if bool((crop == marked[0]).all()):
                        rows[n].flat[0] = np.nan
                yield rows

    marked = []
    monkeypatch.setattr(boundary, "make_engine", lambda *args: Poisoned(real(*args)))
    done = tune(work, live=True, views=None, augment="none")
    assert done.info.finished and sum(reason("fp32") in note for note in done.notes) == 1


def test_too_few_that_are_left_are_refused(work, monkeypatch):
    def lose(task, *args, **options):
        raise LostImages({bytes.fromhex(d): "gone" for d in task.table.digests}, "x.png")

    monkeypatch.setattr(bench, "make_source", lose)
    with pytest.raises(PipelineError, match=r"48 images could not be used .*Too few are left"):
        tune(work)
