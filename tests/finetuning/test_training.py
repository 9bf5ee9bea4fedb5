import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.finetuning.network import Network, cut
from pipeline.finetuning.settings import Part, Settings
from pipeline.finetuning.states import read_state, write_state
from pipeline.finetuning.training import Diverged, Training
from pipeline.heads.metrics import log_loss, softmax, tempered

SETTINGS = Settings(
    epochs=4, batch_size=8, lr=1e-3, head_lr_factor=10.0, layer_decay=1.0, optimizer="adamw",
    weight_decay=0.01, schedule="cosine", label_smoothing=0.1, mixup=0.0,
    train_bn=False, patience=None, ema=1.0, blend=0.0, keep="best", views=(1, 2), fresh="",
    seed=0, precision="fp32",
)  # fmt: skip


class Fixed:
    """Activations that a digest and a view say."""

    def __init__(self, shape=(256, 4, 4)):
        self.shape, self.asked = shape, []

    def batches(self, keys, size):
        self.asked += keys
        for start in range(0, len(keys), size):
            yield torch.stack([self.one(*key) for key in keys[start : start + size]])

    def one(self, digest, view):
        generator = torch.Generator().manual_seed(digest[0] * 10 + view)
        return torch.randn(self.shape, generator=generator) + digest[0] % 3


def part(first: int, count: int) -> Part:
    numbers = range(first, first + count)
    return Part(tuple(bytes([n] * 32) for n in numbers), np.array([n % 3 for n in numbers]))


def training(loaded, settings=SETTINGS, *, select=12, train_bn=False) -> Training:
    torch.manual_seed(0)
    net = Network(
        loaded.module, loaded.preprocess, layer="feature", pool="own",
        cut=cut(loaded.module, "layer4", layer="feature"), head=nn.Linear(512, 3),
        train_bn=train_bn,
    )  # fmt: skip
    settings = replace(settings, train_bn=train_bn)
    return Training(net, net, Fixed(), part(0, 20), part(100, select), settings)


def keys_of(first: int, count: int) -> list[tuple[bytes, int]]:
    return [(digest, 0) for digest in part(first, count).digests]


def run(tuner: Training, epochs: int | None = None) -> Training:
    tuner.begin()
    for _ in range(tuner.settings.epochs if epochs is None else epochs):
        tuner.epoch()
    return tuner


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("train_bn", [False, True])
def test_a_resumed_run_is_bit_identical_to_one_that_never_stopped(
    trunk, tmp_path, optimizer, train_bn
):
    settings = replace(SETTINGS, optimizer=optimizer)
    settings = replace(settings, blend=0.5)
    whole = run(training(trunk(), settings, train_bn=train_bn))
    first = run(training(trunk(), settings, train_bn=train_bn), 2)
    write_state(tmp_path / "s.safetensors", *first.state())
    second = training(trunk(), settings, train_bn=train_bn)
    second.restore(*read_state(tmp_path / "s.safetensors"))
    second.epoch()
    second.epoch()
    assert same(whole.network.learned(), second.network.learned())
    assert same(whole.best, second.best) and whole.best_epoch == second.best_epoch
    plain = [replace(e, seconds=0.0) for e in whole.history]
    assert str(plain) == str([replace(e, seconds=0.0) for e in second.history])


def test_the_same_seed_gives_the_same_run_and_another_another(trunk):
    one, again = (run(training(trunk()), 1) for _ in range(2))
    other = run(training(trunk(), replace(SETTINGS, seed=1)), 1)
    assert same(one.network.learned(), again.network.learned())
    assert not same(one.network.learned(), other.network.learned())


def test_learning_lowers_the_loss_and_the_best_epoch_is_kept(trunk):
    tuner = run(training(trunk()))
    losses = [epoch.loss for epoch in tuner.history]
    assert min(losses) < losses[0] and tuner.best_epoch == int(np.argmin(losses))
    tuner.keep_best()
    assert same(tuner.network.learned(), tuner.best)
    z = tempered(tuner.logits(tuner.select), tuner.select.labels)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert -np.log(p[np.arange(len(z)), tuner.select.labels]).mean() == pytest.approx(
        min(losses), rel=1e-5
    )


def loss_of(tuner: Training, logits: np.ndarray) -> float:
    """Return the log-loss of what chooses, at its best temperature."""
    labels = tuner.select.labels
    return log_loss(labels, softmax(tempered(logits, labels)))


def copied(tuner: Training) -> dict:
    return {k: v.detach().clone() for k, v in tuner.network.learned().items()}


def test_the_first_step_begins_with_the_soft_layer_and_epoch_0_is_the_head(trunk):
    plain, soft = training(trunk()), training(trunk())
    soft.soft = torch.nn.Linear(soft.network.head.in_features, soft.network.head.out_features)
    with torch.no_grad():
        for value in soft.soft.parameters():
            value.zero_()
    before = []
    step = soft._step
    soft._step = lambda x, labels, lr: before.append(copied(soft)) or step(x, labels, lr)
    plain.begin(), soft.begin()
    assert plain.history[0].loss == soft.history[0].loss
    assert same(plain.start, soft.start)
    soft.epoch()
    weight = next(name for name in before[0] if name.endswith("weight") and "head" in name)
    assert not before[0][weight].any() and before[1][weight].any()
    assert soft.average[weight].norm() < plain.start[weight].norm()  # it begins there, too


@pytest.mark.parametrize("train_bn", [False, True])
def test_what_is_scored_and_kept_is_the_moving_average_over_all_steps(trunk, train_bn):
    tuner = training(trunk(), replace(SETTINGS, ema=0.5), train_bn=train_bn)
    tuner.begin()
    want, weight = copied(tuner), 1 / (1 + 0.5 * 3)  # 20 images are 3 steps of 8
    step = tuner._step

    def followed(*arguments):
        loss = step(*arguments)
        for name, value in copied(tuner).items():
            whole = not value.is_floating_point()
            want[name] = value if whole else want[name] + weight * (value - want[name])
        return loss

    tuner._step = followed
    last = tuner.epoch()
    now = copied(tuner)
    assert all(torch.allclose(tuner.average[name], want[name], atol=1e-6) for name in want)
    assert not same(now, tuner.average)
    tuner.network.put(tuner.average)
    assert loss_of(tuner, tuner.logits(tuner.select)) == pytest.approx(last.loss, rel=1e-5)


@pytest.mark.parametrize("train_bn", [False, True])
def test_what_lies_between_the_start_and_the_average_is_kept_where_it_scores_better(
    trunk, train_bn
):
    # a rate at which the average overshoots
    tuner = training(trunk(), replace(SETTINGS, blend=0.5, lr=0.02), train_bn=train_bn)
    tuner.begin()
    start = copied(tuner)
    tuner.epoch()
    now = copied(tuner)
    losses = {}
    for share in (0.5, 1.0):
        tuner.network.put({
            k: start[k] + share * (v - start[k]) if v.is_floating_point() else v
            for k, v in tuner.average.items()
        })  # fmt: skip
        if train_bn and share < 1:  # 20 images, 8 at once
            tuner.network.take_statistics(tuner.source.batches(keys_of(0, 16), 8))
        losses[share] = loss_of(tuner, tuner.logits(tuner.select))
    best = min(losses, key=losses.get)
    last = tuner.history[-1]
    assert best == 0.5  # or it would show nothing
    assert last.share == best and last.loss == pytest.approx(losses[best], rel=1e-4)
    tuner.network.put(now)
    if tuner.best_epoch == 1:
        assert all(
            torch.allclose(tuner.best[k], (start[k] + tuner.average[k]) / 2, atol=1e-6)
            for k in start
            if start[k].is_floating_point() and "running" not in k
        )


def test_scoring_leaves_the_network_where_its_steps_led(trunk):
    one, other = (run(training(trunk(), replace(SETTINGS, blend=b)), 3) for b in (0.0, 0.5))
    assert same(copied(one), copied(other)) and same(one.average, other.average)
    assert {epoch.share for epoch in one.history} == {1.0}
    pairs = zip(one.history, other.history, strict=True)
    assert all(with_it.loss <= without.loss for without, with_it in pairs)


def test_without_averaging_the_weights_themselves_are_kept(trunk):
    tuner = run(training(trunk(), replace(SETTINGS, ema=0.0), select=0))
    assert same(tuner.best, copied(tuner))


def test_training_draws_random_views_and_scoring_the_evaluation_view(trunk):
    tuner = run(training(trunk()), 1)
    views = {view for digest, view in tuner.source.asked if digest[0] < 100}
    assert views == {1, 2}
    assert {view for digest, view in tuner.source.asked if digest[0] >= 100} == {0}


def test_patience_ends_a_run_that_gets_no_better(trunk):
    tuner = training(trunk(), replace(SETTINGS, epochs=50, lr=0.3, patience=2))
    tuner.begin()
    while not tuner.ended:
        tuner.epoch()
    assert len(tuner.history) - 1 == tuner.best_epoch + 2 < 50 or not tuner.ended


def test_without_a_selection_part_the_last_epoch_is_kept(trunk):
    tuner = run(training(trunk(), select=0))
    assert tuner.best_epoch == 4 and math.isnan(tuner.history[-1].loss)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_best_epoch(trunk):
    tuner = run(training(trunk()), 2)
    best = {k: v.clone() for k, v in tuner.best.items()}
    tuner.source.one = lambda digest, view: torch.full((256, 4, 4), math.nan)
    with pytest.raises(Diverged):
        tuner.epoch()
    assert same(tuner.best, best) and len(tuner.history) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, Diverged])
@pytest.mark.parametrize("train_bn", [False, True])
def test_after_a_step_that_broke_off_what_is_kept_is_scored_without_dropout_and_changed_by_nothing(
    trunk, error, train_bn
):
    loaded = trunk()
    layer4 = loaded.module.stages["layer4"]
    names = [name for name, module in layer4.named_modules() if isinstance(module, nn.ReLU)]
    layer4.set_submodule(names[-1], nn.Sequential(nn.ReLU(), nn.Dropout(0.5)))
    tuner = run(training(loaded, train_bn=train_bn), 1)
    assert tuner.best_epoch == 1
    step, steps = tuner._step, []

    def broken(*arguments):
        steps.append(step(*arguments))
        if len(steps) == 2:
            raise error
        return steps[-1]

    tuner._step = broken
    with pytest.raises(error):
        tuner.epoch()
    assert not any(module.training for module in tuner.network.modules())
    tuner.keep_best()
    kept = copied(tuner)
    logits = [tuner.logits(tuner.select) for _ in range(2)]
    np.testing.assert_array_equal(*logits)
    assert loss_of(tuner, logits[0]) == tuner.history[1].loss
    assert same(copied(tuner), kept)  # running statistics as well


def test_the_head_learns_ten_times_as_fast_and_norms_have_no_decay(trunk):
    tuner = training(trunk())
    factors = {g["factor"] for g in tuner.optimizer.param_groups}
    assert factors == {1.0, 10.0}
    for group in tuner.optimizer.param_groups:
        flat = {p.ndim <= 1 for p in group["params"]}
        assert flat == {group["weight_decay"] == 0}
    run(tuner, 1)
    lrs = {g["factor"]: g["lr"] for g in tuner.optimizer.param_groups}
    assert lrs[10.0] == pytest.approx(10 * lrs[1.0])


def test_out_of_memory_halves_what_is_run_at_once_and_changes_no_step(trunk):
    whole = run(training(trunk()), 1)
    small = training(trunk())
    small.begin()
    real = small.run.forward

    def cramped(x):
        if small.run.training and len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(x)

    small.run.forward = cramped
    small.epoch()
    assert small.limit == 2 and len(small.notes) == 2 and "going on with 2" in small.notes[-1]
    for name, value in whole.network.learned().items():
        assert torch.allclose(value, small.network.learned()[name], atol=1e-5), name


def test_memory_that_does_not_hold_one_image_is_an_error(trunk):
    tuner = training(trunk())
    tuner.begin()

    def never(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    tuner.run.forward = never
    with pytest.raises(torch.OutOfMemoryError):
        tuner.epoch()


def test_bf16_computes_under_autocast_and_keeps_fp32_weights(trunk):
    tuner = run(training(trunk(), replace(SETTINGS, precision="bf16")), 1)
    floats = [v for v in tuner.network.learned().values() if v.is_floating_point()]
    assert {v.dtype for v in floats} == {torch.float32}
    assert tuner.autocast().fast_dtype is torch.bfloat16
    exact = run(training(trunk()), 1)
    assert tuner.history[-1].train_loss == pytest.approx(exact.history[-1].train_loss, rel=0.05)


def test_a_damaged_state_is_named(tmp_path):
    from pipeline.errors import DamagedError

    (tmp_path / "s.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(DamagedError, match="is damaged"):
        read_state(tmp_path / "s.safetensors")
    assert read_state(tmp_path / "none.safetensors") is None


def test_a_loss_of_shares_is_that_of_labels_where_an_image_is_all_its_own(trunk, monkeypatch):
    x, labels = torch.randn(8, 256, 4, 4), torch.arange(8) % 3
    plain = training(trunk())
    plain.weights = torch.tensor([1.0, 2.0, 0.5])
    whole = float(plain._gradients(x, labels))
    classes = torch.nn.functional.one_hot(labels, 3).float()
    monkeypatch.setattr("pipeline.finetuning.training.mixed", lambda x, *_: (x, classes))
    assert float(plain._gradients(x, labels)) == pytest.approx(whole, rel=1e-5)
