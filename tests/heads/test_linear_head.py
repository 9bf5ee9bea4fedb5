import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tables import clouds

from pipeline.errors import DamagedError
from pipeline.heads.cross_validation.candidates import fit
from pipeline.heads.estimators.normalize import NORMALIZATIONS, Normalizer
from pipeline.heads.linear import LinearHead, unit_length
from pipeline.heads.metrics import softmax
from pipeline.heads.registry import HEADS

LINEAR = [name for name, kind in HEADS.items() if kind.linear is not None]


def decisions(estimator, x):
    """Return the estimator's own decision function, two columns for two classes."""
    values = estimator.decision_function(x)
    return np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else values


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(classes=st.integers(2, 4), dim=st.integers(2, 10), seed=st.integers(0, 99),
       balanced=st.booleans())  # fmt: skip
def test_folding_the_scaler_in_keeps_the_estimators_own_decisions(
    name, normalize, classes, dim, seed, balanced
):
    x, y = clouds(36, dim, classes, seed=seed)
    x[:, 0] = 2.5  # a feature that never changes
    kind = HEADS[name]
    normalizer = Normalizer.fit(normalize, x, np.arange(24))
    inside = normalizer.apply(x)
    estimator = kind.make(0, balanced)
    middle = kind.candidates()[len(kind.candidates()) // 2]
    fit(estimator, middle, inside[:24], y[:24])
    head = LinearHead.fold(
        *kind.linear(estimator), mean=normalizer.mean, scale=normalizer.scale,
        l2=normalizer.kind == "l2",
    )  # fmt: skip
    got, want = head.scores(x), decisions(estimator, inside)
    if name == "ncm":  # known up to a term that is the same for every class
        got, want = (values - values.mean(1, keepdims=True) for values in (got, want))
        want = _squares(estimator, inside)
    size = 1 + np.abs(want).max()
    np.testing.assert_allclose(got / size, want / size, atol=2e-4)
    sure = np.sort(want, axis=1)
    sure = sure[:, -1] - sure[:, -2] > 1e-3 * size
    predicted = estimator.predict(inside)
    np.testing.assert_array_equal(got.argmax(1)[sure], predicted[sure])


def _squares(estimator, x):
    """Return minus the squared distances to the class means, centred: the rule of `predict`."""
    values = -np.square(x[:, None] - estimator.centroids_).sum(2)
    return values - values.mean(1, keepdims=True)


@given(st.integers(2, 6), st.integers(1, 8), st.integers(0, 99), st.floats(0.01, 100))
def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path_factory, classes, dim, seed, t):
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(0, 1, (classes, dim)), rng.normal(0, 1, classes)
    head = LinearHead.fold(weight, bias, l2=bool(seed % 2), temperature=t)
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    head.save(path)
    back = LinearHead.load(path)
    assert back.weight.tobytes() == head.weight.tobytes()
    assert back.bias.tobytes() == head.bias.tobytes()
    assert (back.l2, back.temperature) == (head.l2, head.temperature)
    x = rng.normal(0, 1, (5, dim))
    assert back.scores(x).tobytes() == head.scores(x).tobytes()


def test_folding_does_not_lose_the_bias_of_features_far_from_zero():
    rng = np.random.default_rng(0)
    x = rng.normal(100, 1, (50, 32)).astype(np.float32)
    weight, bias = rng.normal(0, 1, (3, 32)), rng.normal(0, 1, 3)
    mean, scale = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    head = LinearHead.fold(weight, bias, mean=mean, scale=scale)
    want = ((x - mean) / scale) @ weight.T + bias
    np.testing.assert_allclose(head.scores(x), want, atol=5e-3)


def test_as_a_torch_layer_it_gives_the_logits():
    torch = pytest.importorskip("torch")
    x, _ = clouds(10, 5, 3)
    rng = np.random.default_rng(0)
    head = LinearHead.fold(rng.normal(0, 1, (3, 5)), rng.normal(0, 1, 3), temperature=2.5)
    logits = head.to_linear()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(softmax(logits), softmax(head.scores(x), 2.5), atol=1e-5)


def test_unit_vectors_have_length_one_and_zeros_stay():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = unit_length(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(got, [[0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])  # whose squares float32 cannot hold
def test_very_short_and_very_long_features_get_unit_length_too(scale):
    got = unit_length(np.array([[3, 4], [-4, 3]], np.float32) * np.float32(scale))
    assert np.allclose(got, [[0.6, 0.8], [-0.8, 0.6]]) and got.dtype == np.float32


def good() -> dict[str, np.ndarray]:
    return {
        "weight": np.ones((2, 3), np.float32),
        "bias": np.zeros(2, np.float32),
        "temperature": np.ones(1),
    }


META = {"normalize": "none"}


@pytest.mark.parametrize(
    ("changes", "metadata"),
    [
        ({"bias": np.zeros(3, np.float32)}, META),
        ({"weight": np.ones(6, np.float32)}, META),
        ({"temperature": np.array(1.0)}, META),
        ({"temperature": np.ones(0)}, META),
        ({"temperature": np.zeros(1)}, META),
        ({"temperature": np.array([np.nan])}, META),
        ({"weight": np.full((2, 3), np.nan, np.float32)}, META),
        ({"bias": np.full(2, np.inf, np.float32)}, META),
        ({"weight": np.ones((2, 3), np.int64)}, META),
        ({"weight": None}, META),
        ({"temperature": None}, META),
        ({}, {"normalize": "standard"}),
        ({}, {}),
        ({}, None),
    ],
)
def test_a_file_that_is_not_a_head_is_refused(tmp_path, changes, metadata):
    tensors = {k: v for k, v in {**good(), **changes}.items() if v is not None}
    save_file(tensors, tmp_path / "head.safetensors", metadata=metadata)
    with pytest.raises(DamagedError, match=r"head.safetensors is damaged: "):
        LinearHead.load(tmp_path / "head.safetensors")


@pytest.mark.parametrize("cut", [0, 4, 8, 60, -1])
def test_a_truncated_file_is_refused(tmp_path, cut):
    path = tmp_path / "head.safetensors"
    save_file(good(), path, metadata=META)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DamagedError, match="is damaged"):
        LinearHead.load(path)


def test_a_header_that_claims_more_than_the_file_is_refused(tmp_path):
    path = tmp_path / "head.safetensors"
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(DamagedError, match="is damaged"):
        LinearHead.load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DamagedError, match="is damaged"):
        LinearHead.load(tmp_path / "none.safetensors")
