"""Calibration: what a head's or model's logits are divided by so that probabilities mean something.

Where 100 images get a probability of about 0.8, about 80 should be right. The temperature is fitted
when the head or model is made, on images that it was not fitted on, and kept in its JSON file, so
that predicting needs no data. It never changes which class is the likeliest.
"""

from __future__ import annotations

import numpy as np

from pipeline.heads.metrics import fit_temperature, log_loss, softmax
from pipeline.store.records import Calibration

#: Images' worth of belief that labels have nothing to do with scores; see `fit_temperature`.
#: Platt 1999, "Probabilistic outputs for support vector machines", section 2.2, for the idea.
PRIOR = 1.0


def fit(logits: np.ndarray, labels: np.ndarray, *, on: str) -> Calibration:
    """Return what is kept in `head.json` and `model.json`.

    Args:
        logits: [n, K] of images that were not fitted on; −∞ for a class that was never seen.
        labels: [n] int64.
        on: which images these are: `cv` for the held-out folds of train, `val`, or `train-part`.

    Returns:
        The temperature, and the log-loss of these images before and after it.
    """
    temperature = fit_temperature(logits, labels, prior=PRIOR)
    before, after = (log_loss(labels, softmax(logits, t)) for t in (1.0, temperature))
    if after >= before:  # with few images the prior says more than they do
        temperature, after = 1.0, before
    return Calibration(temperature, on, len(labels), before, after)
