import pytest
import torch

from pipeline.errors import UsageError
from pipeline.trunks.engines.devices import choose_precision
from pipeline.trunks.engines.products import products

NEWER = hasattr(torch.backends.cuda.matmul, "fp32_precision")


def flags():
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if NEWER:
        return [cuda.fp32_precision, cudnn.conv.fp32_precision]
    return [cuda.allow_tf32, cudnn.allow_tf32]


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("bf16", False), ("tf32", True)])
@pytest.mark.parametrize("level", ["highest", "high", "medium"])
def test_products_are_ieee_unless_tf32_is_asked_for_and_the_flags_are_as_before(
    precision, tf32, level
):
    own = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(level)
    try:
        before = flags()
        with pytest.raises(ZeroDivisionError), products(precision):
            assert flags() == ([["ieee", "tf32"][tf32]] * 2 if NEWER else [tf32] * 2)
            _ = 1 / 0
        assert flags() == before and torch.get_float32_matmul_precision() == level
    finally:
        torch.set_float32_matmul_precision(own)


def test_tf32_is_refused_where_there_is_none():
    with pytest.raises(UsageError, match="tf32 needs an NVIDIA GPU"):
        choose_precision("tf32", "cpu")
