"""Choice of images: unlike each other, unlike labelled ones, unsure, and rich in rare classes."""

from __future__ import annotations

import numpy as np

from refinenet.labelling.ranking.choice import LEAST_WEIGHT, Labelled, Pool, choose, rank_shares

RANDOM = np.random.default_rng(5)


def pool(features: object, shares: object = None, measures: object = None) -> Pool:
    places = np.asarray(features, np.float16)
    count = len(places)
    return Pool(
        measures=np.asarray(measures if measures is not None else np.ones((count, 3)), np.float32),
        shares=np.asarray(shares if shares is not None else np.ones((count, 2)) / 2, np.float32),
        features=places,
    )


def test_frames_of_one_video_are_chosen_once_before_any_twice() -> None:
    """Forty nearly equal frames of each of three videos, of which one is far longer than the others."""
    centres = np.array([[8.0, 0, 0], [0, 8, 0], [0, 0, 8]])
    videos = [0] * 90 + [1] * 20 + [2] * 10
    found = choose(pool(centres[videos] + RANDOM.normal(0, 0.1, (120, 3))), 3)
    assert {videos[each.index] for each in found} == {0, 1, 2}
    assert [each.novelty > 0.5 for each in found] == [True, True, True]


def test_images_like_labelled_ones_come_last() -> None:
    centres = np.array([[8.0, 0], [0, 8]])
    known = Labelled(
        shares=np.full((3, 2), 0.5, np.float32), features=np.array([[8, 0.1], [8, 0], [8, -0.1]], np.float16)
    )
    groups = [0] * 30 + [1] * 5
    found = choose(pool(centres[groups] + RANDOM.normal(0, 0.05, (35, 2))), 1, known)
    assert groups[found[0].index] == 1
    assert choose(pool(centres[groups]), 1)[0].index < 30  # without labels the many come first


def test_the_less_sure_of_equal_images_is_chosen() -> None:
    measures = np.array([[0.1, 0.2, 0.1], [0.3, 0.5, 0.2], [0.2, 0.3, 0.15]])
    found = choose(pool(np.zeros((3, 2)), measures=measures), 3)
    assert found[0].index == 1
    assert (found[0].unsureness, found[0].nearest) == (1.0, None)


def test_an_image_with_a_rare_class_is_chosen_among_equals() -> None:
    shares = np.tile([0.99, 0.01], (20, 1))
    shares[13] = [0.8, 0.2]
    found = choose(pool(np.zeros((20, 2)), shares), 2)
    assert found[0].index == 13
    assert found[0].classes[0][0] == 1
    assert found[0].classes[0][1] > 5


def test_the_lazy_choice_is_that_of_trying_all_images_each_time() -> None:
    """The oracle computes all gains anew before each choice, from the words of the docstring."""
    count = 60
    features = RANDOM.normal(0, 2, (count, 4)).astype(np.float16)
    shares = RANDOM.dirichlet(np.ones(5), count).astype(np.float32)
    measures = RANDOM.random((count, 3)).astype(np.float32)
    places = features.astype(np.float64)
    places = (places - places.mean(0)) / np.sqrt(2 * places.var(0).sum())
    alike = np.exp(-2 * ((places[:, None] - places) ** 2).sum(-1))
    amounts = shares / shares.mean(0)
    order = measures.argsort(0).argsort(0) / (count - 1)
    weights = LEAST_WEIGHT + (1 - LEAST_WEIGHT) * order.mean(1)
    best, nearest, covered, expected, units = np.zeros(count), np.zeros(count), np.zeros(5), list[int](), None
    for _ in range(12):
        classes = np.log1p(amounts / (1 + covered)).mean(1) * (1 - nearest)
        parts = np.stack([np.maximum(alike - best, 0).mean(1), classes], 1)
        units = parts.max(0) if units is None else units
        gains = weights * (parts / units).sum(1)
        gains[expected] = -1
        chosen = int(gains.argmax())
        expected.append(chosen)
        best, covered = np.maximum(best, alike[chosen]), covered + amounts[chosen]
        nearest = np.maximum(nearest, alike[chosen])
    assert [each.index for each in choose(pool(features, shares, measures), 12)] == expected


def test_all_are_chosen_if_there_are_fewer() -> None:
    assert sorted(each.index for each in choose(pool(RANDOM.random((4, 3))), 50)) == [0, 1, 2, 3]
    assert [each.index for each in choose(pool([[1.0, 2.0]]), 5)] == [0]


def test_ranks_are_shared_by_equal_values() -> None:
    assert rank_shares(np.array([[1], [3], [3], [5]], np.float32)).tolist() == [0, 0.5, 0.5, 1]
