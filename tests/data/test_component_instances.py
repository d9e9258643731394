"""Components where a data set has real instances."""

import numpy as np
import pytest

from sgr_d2.data.components import label_components

LIMITS = {"ignore_label": 255, "min_area": 1, "max_components": 100}

LABELS = np.array(
    [
        [0, 0, 1, 1, 1, 2],
        [0, 0, 1, 1, 1, 2],
        [3, 3, 3, 255, 255, 2],
        [0, 0, 0, 0, 1, 1],
    ],
    np.uint8,
)


def test_by_hand():
    instances = np.array(
        [
            [0, 0, 7, 7, 9, 0],  # two touching objects of class 1 ...
            [0, 0, 7, 9, 9, 0],
            [4, 0, 4, 4, 4, 0],  # ... an object in two pieces, and where nothing is labelled
            [0, 0, 0, 0, 0, 0],  # class 1 without instances: by connection
        ]
    )
    found = label_components(LABELS, **LIMITS, instances=instances)
    sizes = np.bincount(found.ids.ravel())[1:].tolist()
    assert sizes == sorted(sizes, reverse=True) == [4, 4, 3, 3, 3, 2, 2, 1]
    assert found.classes.tolist() == [0, 0, 1, 1, 2, 3, 1, 3]
    assert found.ids[0].tolist() == [1, 1, 3, 3, 4, 5]
    assert found.ids[2].tolist() == [6, 8, 6, 0, 0, 5]


def test_no_instance_gives_the_connected_components():
    labels = np.random.default_rng(0).choice([0, 1, 2, 255], (23, 31)).astype(np.uint8)
    plain = label_components(labels, **LIMITS)
    same = label_components(labels, **LIMITS, instances=np.zeros(labels.shape, np.int32))
    assert np.array_equal(plain.ids, same.ids)
    assert np.array_equal(plain.classes, same.classes)


def test_against_a_slow_reference():
    rng = np.random.default_rng(1)
    labels = np.kron(rng.integers(0, 3, (8, 9)), np.ones((4, 3), int)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.1] = 255
    instances = np.where(labels == 1, 10 + np.kron(rng.integers(0, 4, (4, 3)), np.ones((8, 9), int)), 0)
    found = label_components(labels, **LIMITS, instances=instances)
    for number in np.unique(instances[instances > 0]):
        own = (instances == number) & (labels != 255)
        (component,) = np.unique(found.ids[own])
        assert component > 0
        assert np.array_equal(found.ids == component, own)
    stuff = label_components(np.where(labels == 1, 255, labels), **LIMITS)
    for component in range(1, len(stuff.classes) + 1):
        own = stuff.ids == component
        assert len(np.unique(found.ids[own])) == 1
        assert (found.ids == found.ids[own][0]).sum() == own.sum()
    assert len(found.classes) == len(stuff.classes) + len(np.unique(instances[(instances > 0) & (labels != 255)]))


def test_limits_hold_for_instances_too():
    instances = np.where(LABELS == 1, np.arange(LABELS.size).reshape(LABELS.shape) + 1, 0)  # each pixel its own object
    found = label_components(LABELS, ignore_label=255, min_area=2, max_components=2, instances=instances)
    assert (len(found.classes), found.num_small, found.num_cut) == (2, 8, 2)


def test_more_components_than_16_bits():
    labels = np.zeros((300, 400), np.uint8)
    instances = np.arange(1, labels.size + 1).reshape(labels.shape)
    found = label_components(labels, ignore_label=255, min_area=1, max_components=200_000, instances=instances)
    assert np.array_equal(found.ids.ravel(), np.arange(1, labels.size + 1))


def test_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"The instance map has 4x6 pixels \(width x height\), the label map 6x4"):
        label_components(LABELS, **LIMITS, instances=np.zeros((6, 4), int))
