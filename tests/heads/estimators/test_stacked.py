import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.heads.estimators.normalize import Stacked


@st.composite
def stacks(draw):
    images, dim = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    viewed = draw(st.lists(st.integers(0, images - 1), min_size=1, unique=True).map(sorted))
    there = draw(st.integers(1, 4))
    features = 1000.0 * np.arange(images)[:, None] + np.zeros(dim)
    views = features[viewed][:, None] + np.arange(1, there + 1)[:, None]  # 1000 · image + view
    return Stacked(
        features.astype(np.float32), views.astype(np.float32), np.array(viewed),
        draw(st.integers(1, there)),
    )  # fmt: skip


@given(stacks(), st.data())
def test_every_row_is_the_view_of_the_image_that_its_label_says(stack, data):
    images = len(stack.features)
    rows = np.array(data.draw(st.lists(st.integers(0, len(stack) - 1))), np.int64)
    found = stack[rows]
    assert found.shape == (len(rows), stack.features.shape[1]) and found.dtype == np.float32
    labels = stack.labels(np.arange(images))
    assert len(labels) == len(stack)
    np.testing.assert_array_equal(found // 1000, labels[rows][:, None] + np.zeros_like(found))
    assert ((found % 1000 == 0) == (rows < images)[:, None]).all()


@given(stacks(), st.data())
def test_beside_images_stand_their_own_views_and_no_others(stack, data):
    images = len(stack.features)
    rows = np.array(data.draw(st.lists(st.integers(0, images - 1), unique=True)), np.int64)
    both = stack.beside(rows)
    np.testing.assert_array_equal(both[: len(rows)], rows)
    found = stack[both][:, 0]
    want = [
        1000 * row + v for row in rows if row in stack.images for v in range(1, stack.count + 1)
    ]
    assert sorted(found[len(rows) :].tolist()) == sorted(want)
