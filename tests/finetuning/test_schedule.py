import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.finetuning.settings import SCHEDULES, draw, factor
from pipeline.images.views import numbered


@given(st.sampled_from(SCHEDULES), st.integers(1, 500), st.data())
def test_factors_lie_between_zero_and_one_and_rise_to_a_warm_up(schedule, total, data):
    step = data.draw(st.integers(0, total - 1))
    value = factor(schedule, step, total)
    assert 0 <= value <= 1
    if step < round(0.1 * total):
        assert value == (step + 1) / (round(0.1 * total) + 1)


def test_each_schedule_ends_where_it_should():
    total = 1000
    assert factor("cosine", total - 1, total) < 1e-5
    assert factor("constant", total - 1, total) == 1
    assert np.isclose(factor("step", 550, total), 0.1) and np.isclose(
        factor("step", 990, total), 0.01
    )


@given(
    st.integers(1, 50), st.sets(st.integers(0, 70_000), min_size=1),
    st.sampled_from(["", "shift", "crop+mirror"]), st.integers(1, 9), st.integers(0, 9),
)  # fmt: skip
def test_an_epoch_sees_every_image_once_in_an_allowed_view(count, views, fresh, epoch, seed):
    options = {"views": tuple(sorted(views)), "fresh": fresh, "epoch": epoch, "seed": seed}
    order, drawn = draw(count, **options)
    assert sorted(order) == list(range(count)) and len(drawn) == count
    assert set(drawn.tolist()) <= views | ({numbered(fresh, epoch)} if fresh else set())
    again = draw(count, **options)
    assert (order == again[0]).all() and (drawn == again[1]).all()


def test_epochs_and_seeds_draw_differently():
    first = draw(100, views=(0, 1, 2), epoch=1, seed=0)
    assert set(first[1].tolist()) == {0, 1, 2}  # the evaluation view is drawn, too
    assert (first[0] != draw(100, views=(0, 1, 2), epoch=2, seed=0)[0]).any()
    assert (first[1] != draw(100, views=(0, 1, 2), epoch=1, seed=1)[1]).any()
