"""Copies to and from a GPU, on streams that only write down what is done to them."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.trunks.engines import copies
from pipeline.trunks.engines.copies import StreamCopies
from pipeline.trunks.engines.torch_engine import TorchEngine


class FakeStream:
    """Queues words; an event marks a place in its queue, a wait notes what stands before it."""

    def __init__(self, name, log):
        self.name, self.queue, self.log = name, [], log

    def add(self, what):
        self.queue.append(what)

    def wait_stream(self, other):
        self.queue.append(("waits for", tuple(other.queue)))

    def record_event(self):
        mark = len(self.queue)
        return SimpleNamespace(synchronize=lambda: self.log.append((self.name, mark)))


@pytest.fixture
def streams(monkeypatch):
    """Yield the streams by name, and what the host waited for."""
    made, log = {}, []
    names = iter(("inward", "outward"))
    made["compute"] = FakeStream("compute", log)
    current = [made["compute"]]

    def stream(device=None):
        name = next(names)
        made[name] = FakeStream(name, log)
        return made[name]

    @contextmanager
    def within(one):
        current.append(one)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: current[-1])
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    real_to, real_copy, real_empty = torch.Tensor.to, torch.Tensor.copy_, torch.empty

    def to(self, *args, **kwargs):
        if kwargs.pop("non_blocking", False):
            current[-1].add("in")
            return real_to(self, "cpu")
        return real_to(self, *args, **kwargs)

    def copy(self, other, non_blocking=False):
        if non_blocking:
            current[-1].add("out")
        return real_copy(self, other)

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "copy_", copy)
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **kw: real_empty(*a, **kw))
    return SimpleNamespace(**made, made=made, log=log, current=current)


class Means(nn.Module):
    def __init__(self, streams):
        super().__init__()
        self.streams = streams

    def forward(self, x):
        self.streams.current[-1].add("compute")
        return x.float().mean((2, 3))


def gpu(streams) -> TorchEngine:
    made = TorchEngine.__new__(TorchEngine)
    made.name, made.notes, made.limit, made.precision = "torch-cuda", [], None, "bf16"
    made.device, made.net = torch.device("cpu"), Means(streams)
    made.copies = StreamCopies(torch.device("cuda"))
    return made


def test_a_batch_comes_back_while_the_next_are_computed_and_the_host_waits_for_it_alone(streams):
    engine = gpu(streams)
    batches = [torch.full((2, 3, 4, 4), value, dtype=torch.uint8) for value in range(4)]
    rows = engine.run(iter(batches))
    first = next(rows)
    # two batches are launched behind the first, and the host has waited for the first copy alone
    assert streams.compute.queue.count("compute") == 3
    assert streams.log == [("outward", 2)] and (first == 0).all()
    rest = list(rows)
    assert [int(one.mean()) for one in rest] == [1, 2, 3] and rest[0].dtype == np.float32
    assert [mark for _, mark in streams.log] == [2, 4, 6, 8]


def test_each_copy_waits_for_what_it_needs_and_for_nothing_behind_it(streams):
    engine = gpu(streams)
    list(engine.run(torch.zeros((1, 3, 4, 4), dtype=torch.uint8) for _ in range(3)))
    inward, outward = streams.made["inward"].queue, streams.made["outward"].queue
    assert inward == ["in"] * 3  # never waits for what is computed
    waits = [entry[1] for entry in outward if entry != "out"]
    assert [seen.count("compute") for seen in waits] == [1, 2, 3]
    computed = streams.compute.queue
    before = [entry for entry in computed if entry != "compute"]
    assert [seen.count("in") for _, seen in before] == [1, 2, 3]
    assert outward[1::2] == ["out"] * 3


def test_a_cpu_copies_nothing():
    x = torch.zeros((1, 3, 4, 4), dtype=torch.uint8)
    direct = copies.copies_for(torch.device("cpu"))
    assert direct.put(x) is x and direct.ahead == 0
    assert direct.get(torch.ones(2, 3))().shape == (2, 3)
