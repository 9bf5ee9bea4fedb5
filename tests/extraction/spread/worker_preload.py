"""What a worker of Dask loads when it starts: the trunk of `child_driver`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def dask_setup(worker):
    from child_driver import arm

    arm()
