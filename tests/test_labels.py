import numpy as np
import pytest
import torch

from sgr_d2.labels import labels_of, resize_nearest


def test_by_hand():
    scores = torch.tensor([[[1.0, 2.0]], [[3.0, 2.0]], [[3.0, float("nan")]]])  # ties, and a NaN
    assert labels_of(scores).tolist() == [[1, 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(3, 7, 5), (21, 300, 113), (1, 4, 4), (5, 0, 8), (4, 8, 0)])
def test_the_labels_of_torch(size, dtype):
    scores = torch.randn(size, generator=torch.Generator().manual_seed(0)).mul(4).round().to(dtype)  # many ties
    scores[:, ::3, ::5] = torch.nan
    expected = scores.argmax(dim=0)
    labels = labels_of(scores.requires_grad_())
    assert labels.dtype == np.int64 and np.array_equal(labels, expected.numpy())
    channels_last = scores.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert np.array_equal(labels_of(channels_last), labels)


@pytest.mark.gpu
def test_the_same_on_a_gpu():
    scores = torch.randn(19, 65, 130)
    assert np.array_equal(labels_of(scores.cuda()), labels_of(scores))


def test_resize_nearest_by_hand():
    labels = np.array([[1, 2], [3, 4]])
    assert resize_nearest(labels, (2, 4)).tolist() == [[1, 1, 2, 2], [3, 3, 4, 4]]
    assert resize_nearest(labels, (1, 1)).tolist() == [[4]]  # the centre lies on the border, floor takes the next
    assert resize_nearest(np.arange(5)[None], (1, 3)).tolist() == [[0, 2, 4]]
    assert resize_nearest(labels, (2, 2)) is labels
    assert resize_nearest(labels.astype(np.uint16), (1, 1)).dtype == np.uint16


def test_resize_nearest_odd_sizes_against_the_formula():
    labels = np.arange(7 * 11).reshape(7, 11)
    out = resize_nearest(labels, (5, 13))
    for y in range(5):
        for x in range(13):
            assert out[y, x] == labels[int((y + 0.5) / 5 * 7), int((x + 0.5) / 13 * 11)]
