"""The forecast: right about power laws, honest about what it cannot know."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.analysis.advising.learning_curve import Point, forecast, noise


def curve(error, *, images=1024, halvings=5, repeats=5, sd=lambda n: 0.0, rng=None):
    """Return the points of a curve whose true error is a function of the images."""
    rng = rng or np.random.default_rng(0)
    points = []
    for halving in range(halvings, -1, -1):
        n = images / 2**halving
        count = repeats if halving else 1
        wobble = rng.normal(size=count) * sd(n)
        points.append(Point(n, tuple(np.clip(error(n) + wobble, 0, 1).tolist())))
    return points


def law(a, b, c):
    return lambda n: a * n**-b + c


@pytest.mark.parametrize("true", [law(2, 0.5, 0.05), law(1, 0.3, 0), law(4, 1, 0.2)])
def test_a_power_law_is_continued(true):
    for images in (2048, 4096):
        (found,) = forecast(curve(true), [images], held=10**6)
        assert found.accuracy == pytest.approx(1 - true(images), abs=0.012)
        assert found.interval[0] < 1 - true(images) < found.interval[1]
        assert found.interval[1] - found.interval[0] < 0.6 * true(1024)


def test_a_flat_curve_promises_nothing():
    (found,) = forecast(curve(lambda n: 0.5), [2048], held=1000)
    assert found.gain < 0.02 and found.gain_interval[0] < 0.005


def test_intervals_hold_what_comes_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    hits, gains = [], []
    for _ in range(150):
        e, f, b = rng.uniform(0.03, 0.4), rng.uniform(0, 0.9), rng.uniform(0.15, 0.9)
        held = int(rng.choice([150, 600, 1300]))
        luck = rng.normal() * np.sqrt(e * (1 - e) / held)

        def true(n, e=e, f=f, b=b):
            return e * (f + (1 - f) * (n / 1024) ** -b)

        def sd(n, e=e):
            return np.sqrt(0.25 * e / n)

        points = curve(lambda n, luck=luck, true=true: true(n) + luck, sd=sd, rng=rng)
        comes = true(2048) + rng.normal() * sd(2048)
        (found,) = forecast(points, [2048], held=held)
        hits.append(found.interval[0] <= 1 - comes <= found.interval[1])
        gain = points[-1].error - comes - luck
        gains.append(found.gain_interval[0] <= gain <= found.gain_interval[1])
    assert np.mean(hits) >= 0.88 and 0.86 <= np.mean(gains) <= 0.99


@settings(max_examples=30)
@given(
    st.floats(0, 0.9), st.floats(0.05, 1), st.floats(0, 0.4), st.integers(3, 6),
    st.integers(10, 2000), st.integers(0, 9),
)  # fmt: skip
def test_whatever_the_curve_the_interval_is_a_part_of_0_to_1_and_holds_the_median(
    a, b, c, halvings, held, seed
):
    points = curve(
        lambda n: min(1, a * (n / 1024) ** -b + c), halvings=halvings,
        sd=lambda n: 0.3 / n**0.5, rng=np.random.default_rng(seed),
    )  # fmt: skip
    for found in forecast(points, [1024, 2048, 8192], held=held):
        assert 0 <= found.interval[0] <= found.accuracy <= found.interval[1] <= 1
        assert found.gain_interval[0] <= found.gain <= found.gain_interval[1]


def test_fewer_held_out_images_and_a_farther_target_make_it_wider():
    points = curve(law(2, 0.5, 0.05))

    def width(target, held):
        (found,) = forecast(points, [target], held=held)
        return found.interval[1] - found.interval[0]

    assert width(2048, 100) > width(2048, 1000) > width(2048, 100_000)
    assert width(16384, 10_000) > width(2048, 10_000)


def test_no_error_is_not_certainty():
    (found,) = forecast(curve(lambda n: 0.0), [2048], held=50)
    assert found.interval[0] < 0.97 < 0.999 < found.accuracy <= found.interval[1] == 1
    one = [*curve(lambda n: 0.02)[:-1], Point(1024, (0.02,))]
    assert forecast(one, [2048], held=50)[0].interval[1] == 1  # one wrong image may be right next


def test_the_same_curve_has_the_same_forecast():
    points = curve(law(2, 0.5, 0.05))
    assert forecast(points, [2048], held=99) == forecast(points, [2048], held=99)


def test_noise_is_that_of_independent_training_sets():
    rng = np.random.default_rng(0)
    whole = 1024
    found = [
        noise(curve(lambda n: 0.3, sd=lambda n: np.sqrt(0.2 * (1 / n - 1 / whole)), rng=rng))
        for _ in range(300)
    ]
    assert np.mean(found) == pytest.approx(0.2, rel=0.1)
    assert noise(curve(law(2, 0.5, 0), repeats=1)) == pytest.approx(0.025)
