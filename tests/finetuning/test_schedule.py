import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.finetuning.recipe import SCHEDULES, draw, factor


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


@given(st.integers(1, 50), st.integers(-1, 5), st.integers(1, 9), st.integers(0, 9))
def test_an_epoch_sees_every_image_once_in_an_allowed_view(count, views, epoch, seed):
    order, drawn = draw(count, views=views, epoch=epoch, seed=seed)
    assert sorted(order) == list(range(count)) and len(drawn) == count
    allowed = {0: {0}, -1: {epoch}}.get(views, set(range(1, views + 1)))
    assert set(drawn.tolist()) <= allowed
    again = draw(count, views=views, epoch=epoch, seed=seed)
    assert (order == again[0]).all() and (drawn == again[1]).all()


def test_epochs_and_seeds_draw_differently():
    first = draw(100, views=4, epoch=1, seed=0)
    assert (first[0] != draw(100, views=4, epoch=2, seed=0)[0]).any()
    assert (first[1] != draw(100, views=4, epoch=1, seed=1)[1]).any()
