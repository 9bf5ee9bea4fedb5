from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import functools
import os
import pathlib
import random
import sys
import types
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

from pipeline.errors import PipelineError
from pipeline.trunks.sources.checkpoint import read_sets

STATE = {"a": torch.ones(2)}
HARMLESS = {
    "NumPy scalars": [np.float64(0.9), np.float32(1), np.int64(3), np.bool_(True), np.str_("x")],
    "NumPy arrays": [np.zeros((2, 3)), np.array(["a", None], object), np.array(["a", "bc"])],
    "records": np.zeros(2, [("a", "f4")]),
    "NumPy types": [np.dtype("f4"), np.float64, np.datetime64("2020-01-01")],
    "keys of NumPy": {np.int64(1): 2, np.str_("x"): 3},
    "dictionaries": [collections.OrderedDict(a=1), collections.Counter("ab")],
    "default dictionaries": [
        collections.defaultdict(list, {"a": [1]}), collections.defaultdict(int),
    ],
    "deque": collections.deque([1, 2], maxlen=3),
    "namespaces": [argparse.Namespace(a=pathlib.Path("r")), types.SimpleNamespace(a=1)],
    "dates": [
        datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.date(2020, 1, 1),
        datetime.timedelta(1), datetime.time(1),
    ],
    "paths": [pathlib.Path("/x/y"), pathlib.PureWindowsPath("C:/x")],
    "torch's": [torch.Size([1]), torch.float16, torch.device("cpu"), torch.__version__],
    "Python's": [
        frozenset([1]), {1}, slice(1, 2), 1j, b"ab", bytearray(b"a"), 10**30, range(3), int,
        uuid.UUID(int=7), decimal.Decimal("1.5"),
    ],
    "parts of a training": [
        torch.optim.AdamW,
        functools.partial(torch.optim.SGD, lr=0.1),
    ],
    "random states": [random.getstate(), np.random.get_state()],
}  # fmt: skip


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_things_beside_the_tensors_do_not_stop_a_load(
    tmp_path: Path, kind: str, new: bool
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"x": HARMLESS[kind], "s": STATE}, path, _use_new_zipfile_serialization=new)
    assert read_sets(path)["s"]["a"].tolist() == [1, 1]


@pytest.mark.parametrize("place", ["easydict.EasyDict", "omegaconf.dictconfig.DictConfig"])
def test_settings_in_containers_of_packages_that_are_not_installed_do_not_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    module, _, name = place.rpartition(".")
    base = dict if name == "EasyDict" else object
    kind = type(name, (base,), {"__module__": module})
    monkeypatch.setitem(sys.modules, module.split(".")[0], types.ModuleType("package"))
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{name: kind}))
    held: Any = kind()
    held.lr = 0.1
    if base is dict:
        held["lr"] = 0.1
    torch.save({"s": STATE, "cfg": held}, tmp_path / "w.pth")
    monkeypatch.delitem(sys.modules, module)
    assert list(read_sets(tmp_path / "w.pth")) == ["s"]


class Reduced:
    """Pickles as a call of anything."""

    def __init__(self, call: Any, *arguments: Any):
        self.reduced = call, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def test_nothing_on_the_list_is_made_or_looked_up(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for held in (
        Reduced(getattr, argparse.Namespace, "__init__"),
        Reduced(np.ndarray, (1 << 15,) * 2, Reduced(np.dtype, "V999999")),
        Reduced(bytes, 1 << 50),
    ):
        torch.save({"s": STATE, "x": held}, path)
        assert list(read_sets(path)) == ["s"]


def test_a_loss_with_its_weights_does_not_either(tmp_path: Path) -> None:
    torch.save(
        {"s": STATE, "x": [torch.nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss(torch.ones(3))]},
        tmp_path / "w.pth",
    )
    assert list(read_sets(tmp_path / "w.pth")) == ["s"]


@pytest.mark.parametrize("new", [True, False])
def test_a_pickled_network_is_told_in_files_old_and_new(tmp_path: Path, new: bool) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(1, 1))
    torch.save(net, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(
        PipelineError, match=r"holds a whole pickled network .*nothing in it was run"
    ):
        read_sets(tmp_path / "w.pth")


def test_another_pickle_protocol_and_numpy_arrays_are_told(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(STATE, path, pickle_protocol=4)
    with pytest.raises(PipelineError, match=r"save it again without pickle_protocol\."):
        read_sets(path)
    torch.save({"a": np.ones(2)}, path)
    with pytest.raises(PipelineError, match=r"torch\.from_numpy around each .* Keys: a\."):
        read_sets(path)


def test_a_damaged_pickle_is_told_without_torchs_advice(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    data = bytearray(path.read_bytes())
    for place in range(20, len(data), 7):
        path.write_bytes(bytes([*data[:place], 0x7F, *data[place + 1 :]]))
        try:
            read_sets(path)
        except PipelineError as error:
            assert "weights_only" not in str(error) and "\n" not in str(error)


def test_a_sharded_checkpoint_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, module = tmp_path / "w.pth", "torch.distributed.somewhere"
    kind = type("Shard", (), {"__module__": module})
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(Shard=kind))
    torch.save({"s": STATE, "x": kind()}, path)
    with pytest.raises(PipelineError, match=r"part of a sharded checkpoint \(torch\.distributed"):
        read_sets(path)


def test_what_is_not_on_the_list_is_refused_by_its_name(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    for held, name in (
        (Reduced(os.mkdir, str(trace)), "mkdir"),
        (Reduced(eval, f"__import__('os').mkdir({str(trace)!r})"), "eval"),
        (Reduced(print, "x"), "print"),
    ):
        torch.save({"s": STATE, "x": held}, tmp_path / "w.pth")
        with pytest.raises(PipelineError, match=rf"{name}\).*nothing in it was run"):
            read_sets(tmp_path / "w.pth")
    assert not trace.exists()


class Own:
    """A class that the caller's process allows."""


def test_torchs_own_list_is_as_before_and_does_not_widen_this_one(tmp_path: Path) -> None:
    before = get_safe_globals()
    torch.save({"s": STATE, "n": argparse.Namespace(), "x": Own()}, tmp_path / "w.pth")
    try:
        add_safe_globals([Own, argparse.Namespace, (dict, "some.name")])
        allowed = set(get_safe_globals())
        with pytest.raises(PipelineError, match=r"Own\)"):
            read_sets(tmp_path / "w.pth")
        torch.save({"s": STATE, "n": argparse.Namespace()}, tmp_path / "w.pth")
        read_sets(tmp_path / "w.pth")
        assert set(get_safe_globals()) == allowed
    finally:
        clear_safe_globals()
        add_safe_globals(before)


def test_mappings_that_hold_each_other_end(tmp_path: Path) -> None:
    held: dict[str, Any] = {"tensor": torch.ones(1)}
    held |= {f"k{i}": held for i in range(50)}
    torch.save(held, tmp_path / "w.pth")
    assert list(read_sets(tmp_path / "w.pth")) == [""]


def test_sets_are_found_down_to_some_depth_the_usual_names_first(tmp_path: Path) -> None:
    other = {"b": torch.ones(1)}
    held = {
        "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}},
        "ema": other,
        "loss": torch.ones(1),
        "model": {"state_dict": STATE, "arch": "x"},
    }
    torch.save(held, tmp_path / "w.pth")
    assert list(read_sets(tmp_path / "w.pth")) == ["model.state_dict", "", "ema"]
