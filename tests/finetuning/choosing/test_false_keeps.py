"""Where nothing is to be gained a model is hardly ever kept: simulated on synthetic activations."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from photos import Heard

from pipeline.finetuning.bench import Bench
from pipeline.finetuning.choosing import budget, verdict
from pipeline.finetuning.choosing.candidates import Candidates
from pipeline.finetuning.network import Network, cut
from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.prepare import last_layer
from pipeline.finetuning.settings import Settings
from pipeline.finetuning.task import Task
from pipeline.heads.linear import LinearHead
from pipeline.trunks import registry
from pipeline.trunks.feature_net import FeatureNet

IMAGES, CLASSES, DRAWS = 75, 3, 200
SETTINGS = Settings(
    epochs=1, batch_size=32, lr=1e-3, head_lr_factor=1.0, layer_decay=1.0, optimizer="adamw",
    weight_decay=0.05, schedule="cosine", label_smoothing=0.1, mixup=0.0, train_bn=False,
    patience=None, ema=0.0, blend=0.0, keep="last", views=(0, 1, 2), fresh="", seed=0,
    precision="fp32",
)  # fmt: skip


class Synthetic:
    """Activations of every image, and views that are the same but for a little noise."""

    def __init__(self, channels):
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randn((IMAGES, channels, 3, 3), generator=generator)
        self.noise = torch.randn((3, channels, 3, 3), generator=generator) / 5
        self.noise[0] = 0

    def batches(self, keys, size):
        for at in range(0, len(keys), size):
            part = keys[at : at + size]
            yield torch.stack([self.rows[int.from_bytes(d)] + self.noise[v] for d, v in part])


def make_bench(folder, source, network, head, labels, draw):
    digests = [number.to_bytes(32).hex() for number in range(IMAGES)]
    table = SimpleNamespace(
        labels=labels, classes=tuple("abc"), digests=digests, features=draw.features,
        groups_of=lambda rows: None,
    )  # fmt: skip
    rows = np.random.default_rng(draw.number).permutation(IMAGES)
    train, select = np.sort(rows[:60]), np.sort(rows[60:])
    info = SimpleNamespace(recipe={"class_weight": None})
    task = Task(
        info, table, FinetuneOptions(), folder / "simulated", train, select, "train-part", {},
        np.arange(IMAGES),
    )  # fmt: skip
    return Bench(task, network, network, network, source, head, SETTINGS, folder, Heard(), [])


@pytest.fixture(autouse=True)
def one_thread():
    """Small convolutions are slower with several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_where_the_head_is_the_truth_a_model_is_kept_in_at_most_a_tenth(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "EPOCHS", 2)
    monkeypatch.setattr(budget, "STEPS", 2)
    monkeypatch.setattr(budget, "SHAPES", ((2, 1, "folds"),))
    loaded = registry.load("timm/test_resnet", "random", state_dir=tmp_path)
    own = cut(loaded.module, "layer4", layer="feature")
    with torch.no_grad():
        net = FeatureNet(loaded.module, loaded.preprocess, own.after, "map")
        channels = net(torch.zeros(1, 3, 64, 64)).shape[-1]
        source = Synthetic(channels)
        wide = FeatureNet(loaded.module, loaded.preprocess, "feature", "own", after=own.after)(
            source.rows
        ).shape[1]
    kept = 0
    for number in range(DRAWS):
        rng = np.random.default_rng(number)
        network = Network(
            loaded.module, loaded.preprocess, layer="feature", pool="own", cut=own,
            head=torch.nn.Linear(wide, CLASSES),
        )  # fmt: skip
        with torch.no_grad():
            features = network.body(source.rows).numpy()
        # the head has the very probabilities that labels are drawn from
        weight = rng.normal(0, rng.choice([0.3, 1.0, 3.0]), (CLASSES, features.shape[1]))
        weight = weight / features.std(0) / np.sqrt(features.shape[1])
        truth = LinearHead.fold(weight, np.zeros(CLASSES), mean=features.mean(0))
        logits = truth.scores(features)
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
        if np.bincount(labels, minlength=CLASSES).min() < 6:
            continue
        head = SimpleNamespace(linear=truth, seconds=0.0)
        monkeypatch.setattr(verdict, "refit", lambda task, rows, head=head: head)
        network.start_from(last_layer(network.head, head=truth))
        start = network.copy()
        draw = SimpleNamespace(features=features, number=number)
        bench = make_bench(tmp_path, source, network, head, labels, draw)
        found = Candidates(bench, None, 1e9).outcome()
        kept += found.decision.kept
        network.put(start)
        bench.clear()
    assert kept <= DRAWS // 10
