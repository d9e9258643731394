import numpy as np
import pytest
import torch

from sgr_d2.labels import labels_of


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
