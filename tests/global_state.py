"""What Python, numpy, torch, scikit-learn and joblib keep for the whole process."""

from __future__ import annotations

import locale
import logging
import os
import random
import signal
import sys
import warnings
from typing import Any

import joblib
import matplotlib
import numpy as np
import sklearn
import torch
from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_info

LOGGERS = ("PIL", "PIL.Image", "PIL.TiffImagePlugin", "torch", "torchvision", "timm", "matplotlib",
           "pipeline", "pipeline.messages")  # fmt: skip


def snapshot() -> dict[str, Any]:
    """Return all that a call must leave as it was; two snapshots are compared by ==."""
    backend, jobs = get_active_backend()
    return {
        "warning filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "numpy errors": (np.geterr(), np.geterrcall()),
        "numpy print": np.get_printoptions(),
        "numpy random": str(np.random.get_state()),
        "random": random.getstate(),
        "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "torch dtype": torch.get_default_dtype(),
        "torch random": torch.get_rng_state().tolist(),
        "torch deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch tf32": (
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision(),
        ),
        "torch cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "torch mkldnn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "torch autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "thread pools": sorted((p["filepath"], p["num_threads"]) for p in threadpool_info()),
        "scikit-learn": sklearn.get_config(),
        "joblib": (type(backend).__name__, jobs, joblib.parallel_config),
        "barred modules": sorted(name for name, module in sys.modules.items() if module is None),
        "environment": dict(os.environ),
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "logging": [
            (log.level, log.disabled, [*log.filters], [*log.handlers])
            for log in [logging.root, *map(logging.getLogger, LOGGERS)]
        ],
        "matplotlib": dict(matplotlib.rcParams),
        "streams": (sys.stdin, sys.stdout, sys.stderr, sys.excepthook),
        "folder": os.getcwd(),
    }
