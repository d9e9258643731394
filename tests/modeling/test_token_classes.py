import torch
from torch.nn import functional as F

from sgr_d2.modeling.sgr import SGRCriterion
from sgr_d2.modeling.sgr.token_classes import TokenClassLoss
from sgr_d2.structures import SGROutput


def test_class_loss_against_each_token():
    torch.manual_seed(0)
    loss = TokenClassLoss(token_dim=4, num_classes=3)
    tokens = torch.randn(2, 3, 4)
    component_of = torch.tensor([[1, 0, -1], [0, 0, 0]])
    classes = [torch.tensor([2, 0]), torch.tensor([1])]
    scores = loss.predictor(tokens)
    each = [
        F.cross_entropy(scores[b, k], torch.tensor(c))
        for b, k, c in ((0, 0, 0), (0, 1, 2), *((1, k, 1) for k in range(3)))
    ]
    torch.testing.assert_close(loss(tokens, component_of, classes), torch.stack(each).mean())


def test_class_loss_of_an_image_without_components_is_zero_with_gradients():
    criterion = SGRCriterion(class_weight=0.4, token_dim=4, num_classes=3)
    valid = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    output = SGROutput({}, torch.randn(1, 2, 4, 4), torch.zeros(1, 2, 4), valid, 1)
    losses = criterion(output, torch.zeros(1, 4, 4, dtype=torch.int32), [torch.zeros(0, dtype=torch.int64)])
    assert losses["loss_token_class"].item() == 0
    losses["loss_token_class"].backward()
    assert all(p.grad is not None for p in criterion.parameters())
