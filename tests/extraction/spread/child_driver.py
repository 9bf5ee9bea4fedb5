"""Stand for `python -m pipeline.extraction.spread.child`, with a trunk that costs nothing.

`CHILD_DRIVER` is a JSON object: `sleep` (seconds of each batch) and `at` (digest of a picture to
the signal by which decoding it ends the process).
"""

import hashlib
import json
import os
import signal
import time

import numpy as np

ENVIRONMENT = "CHILD_DRIVER"


class Engine:
    name, precision, notes = "fake", "", ()

    def run(self, batches):
        for crops in batches:
            time.sleep(json.loads(os.environ[ENVIRONMENT]).get("sleep", 0))
            x = crops.numpy().astype(np.float32)
            yield np.concatenate([x.mean((2, 3)), x.mean((1, 3))], axis=1)


def arm():
    """Give this process a trunk that costs nothing, and the decoder that was asked for."""
    from pipeline.extraction import engines
    from pipeline.images.decoding import crops

    engines.make_engine = lambda *args: Engine()
    ends, real = json.loads(os.environ[ENVIRONMENT]).get("at", {}), crops.picture

    def picture(data, **options):
        if number := ends.get(hashlib.sha256(data).hexdigest()):
            signal.raise_signal(number)
        return real(data, **options)

    crops.picture = picture


if __name__ == "__main__":
    from pipeline.extraction.spread import child

    arm()
    child.main()
