import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small problems are faster on one thread, and other work may run beside the tests."""
    with threadpool_limits(1):
        yield
