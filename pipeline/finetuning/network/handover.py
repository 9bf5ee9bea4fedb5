"""The check before step 0: the network's logits are the head's, or it says which part differs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import PipelineError
from pipeline.heads.linear import LinearHead

#: Largest relative difference (L2 over all images) by the least precise arithmetic on either
#: side. float16 activations cost 5e-4; bfloat16 keeps 8 bits, and 0.04 was seen with trunks of 50
#: layers.
TOLERANCE = {"fp32": 0.005, "fp16": 0.02, "bf16": 0.1}
#: A head's bias below this is that of a class without training images.
UNSEEN = -1e6


@dataclass(frozen=True)
class Handover:
    """How far the network before step 0 is from table and head.

    Attributes:
        features: ‖network's − table's‖ / ‖table's‖ over the features of all compared images.
        logits: the same of logits, their mean over the classes removed.
        tolerance: what both must stay within.
        images: compared.
    """

    features: float
    logits: float
    tolerance: float
    images: int


def check(
    features: np.ndarray,
    logits: np.ndarray,
    *,
    table: np.ndarray,
    head: LinearHead,
    precisions: tuple[str, ...],
) -> Handover:
    """Compare the network before step 0 with the table's features and the head's logits.

    Args:
        features: the network's, [n, D].
        logits: the network's, [n, K].
        table: the table's features of the same images, [n, D].
        head: the refitted head.
        precisions: of the table, and of the network.

    Raises:
        PipelineError: they differ; it says whether features or head do.
    """
    tolerance = max(TOLERANCE[precision] for precision in precisions)
    seen = head.bias / head.temperature > UNSEEN
    want = head.scores(table)[:, seen] / np.float32(head.temperature)
    own = head.scores(features)[:, seen] / np.float32(head.temperature)
    logits = logits[:, seen]
    apart = Handover(
        _distance(features, table), _distance(_even(logits), _even(want)), tolerance, len(table)
    )
    if not apart.features <= tolerance:
        raise PipelineError(
            f"Before the first step the network's features differ from the table's by "
            f"{apart.features:.3g} of their length, and {tolerance:g} is allowed: the trunk, its "
            "weights or the preprocessing are not those that made the table. Run `pipeline "
            "extract` and `pipeline fit-head` again with what is installed now."
        )
    if not _distance(_even(logits), _even(own)) <= tolerance:
        raise PipelineError(
            "Before the first step the network's logits are not those of the head on the same "
            f"features (they differ by {_distance(_even(logits), _even(own)):.3g} of their "
            f"length, {tolerance:g} is allowed): the head was not carried over. Fit it again."
        )
    return apart


def _even(logits: np.ndarray) -> np.ndarray:
    return np.asarray(logits - logits.mean(1, keepdims=True))


def _distance(given: np.ndarray, wanted: np.ndarray) -> float:
    length = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(given - wanted)) / max(length, 1e-12)
