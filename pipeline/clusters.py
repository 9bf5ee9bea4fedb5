"""Workers of Dask: of a cluster on this machine, or of any scheduler."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from pipeline.errors import PipelineError

#: What `--on` takes, for the help.
METAVAR = "dask|tcp://HOST:PORT"
#: An address of a Dask scheduler.
_SCHEDULER = r"(tcp|tls|ucx)://\S+"


def fault(on: str | None) -> list[str]:
    """Return a sentence if that is neither None, `dask`, nor the address of a scheduler."""
    if on is None or on == "dask" or re.fullmatch(_SCHEDULER, on):
        return []
    return [f"--on '{on:.60}' is neither dask nor like tcp://host:8786."]


def library() -> Any:
    """Return `distributed`.

    Raises:
        PipelineError: it is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise PipelineError(
            "--on needs Dask: `pip install 'headstart[dask]'`, here and where its workers run."
        ) from error
    return distributed


@contextmanager
def cluster(count: int, cores: int) -> Iterator[Any]:
    """Give a cluster of processes on this machine, which starts those anew that die."""
    with library().LocalCluster(
        n_workers=count, threads_per_worker=cores, processes=True, dashboard_address=None,
        memory_limit=0, silence_logs=logging.CRITICAL,
    ) as made:  # fmt: skip
        yield made


@contextmanager
def client(address: Any) -> Iterator[Any]:
    """Give a client of a scheduler that is there within half a minute.

    Raises:
        OSError: there is none.
    """
    made = library().Client(address, timeout=30, set_as_default=False)
    try:
        yield made
    finally:
        with suppress(Exception):  # the scheduler may be gone
            made.close(timeout=5)


@contextmanager
def joblib_on(on: str | None, cores: int) -> Iterator[None]:
    """Let joblib's calls within be made by Dask's workers; None leaves them where they are.

    Args:
        on: `dask` for `cores` processes of a cluster on this machine, or a scheduler's address.
        cores: of this machine.

    Raises:
        PipelineError: Dask is not installed, there is no scheduler, or its workers keep dying.
    """
    if on is None:
        yield
        return
    import joblib

    distributed = library()
    with ExitStack() as held:
        try:
            where = held.enter_context(cluster(cores, 1)) if on == "dask" else on
            made = held.enter_context(client(where))
        except OSError as error:
            raise PipelineError(f"There is no Dask scheduler at {on} ({error}).") from error
        held.enter_context(joblib.parallel_config(backend="dask", client=made, n_jobs=-1))
        try:
            yield
        except distributed.KilledWorker as error:
            raise PipelineError(f"The workers at {on} keep dying: {error}.") from error
