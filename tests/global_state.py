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
import numpy as np
import sklearn
import torch
from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_info


def snapshot() -> dict[str, Any]:
    """Return all that a call must leave as it was; two snapshots are compared by ==."""
    backend, jobs = get_active_backend()
    return {
        "warning filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "numpy errors": (np.geterr(), np.geterrcall()),
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
        "thread pools": sorted((p["filepath"], p["num_threads"]) for p in threadpool_info()),
        "scikit-learn": sklearn.get_config(),
        "joblib": (type(backend).__name__, jobs, joblib.parallel_config),
        "barred modules": sorted(name for name, module in sys.modules.items() if module is None),
        "environment": dict(os.environ),
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "logging": (logging.root.level, list(logging.root.handlers)),
        "folder": os.getcwd(),
    }
