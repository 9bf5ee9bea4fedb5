import joblib
import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small problems are faster on one thread, and other work may run beside the tests."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def processes():
    """Let the tests that fit in several processes share them, since each takes seconds to start."""
    yield
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
