"""A file that cannot be written is the system's error, whichever library makes its bytes."""

import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from records import model_info

from pipeline.errors import PipelineError
from pipeline.finetuning import model
from pipeline.heads.linear import LinearHead
from pipeline.heads.predictions import OutOfFold
from pipeline.store.atomic import commit_folder


@contextmanager
def no_room():
    """Let no file grow beyond a few bytes: as a full disk, with another number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def linear(folder):
    LinearHead(np.ones((2, 8), np.float32), np.zeros(2, np.float32)).save(folder / "x")


def out_of_fold(folder):
    OutOfFold(np.arange(3), np.zeros((3, 2)), np.zeros((3, 2))).write(folder)


def weights(folder):
    model.write(folder, model_info(), {"head.weight": torch.zeros(2, 8)})


@pytest.mark.parametrize("write", [linear, out_of_fold, weights])
def test_a_result_that_cannot_be_written_is_named_with_the_systems_reason(tmp_path, write):
    with no_room(), pytest.raises(PipelineError) as caught:
        commit_folder(tmp_path / "r", write, what="the result")
    assert str(caught.value) == (
        f"Cannot write the result {tmp_path}/r: File too large. Remove the cause; then the same "
        "command goes on. What was committed before is intact."
    )
    assert not any(tmp_path.iterdir())
    commit_folder(tmp_path / "r", write, what="the result")
