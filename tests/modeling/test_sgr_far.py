"""SGR carries what one object says to objects far away, which no layer that looks at a cell can do."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn
from torch.nn import functional as F

from sgr_d2.modeling import SGR, SGRCriterion

ROWS, COLUMNS, STRIDE = 2, 40, 4
GROUND, KEY, RING = 0, 1, 3  # the key is 1 or 2, and decides the class of the rings


def strips(count: int, generator: torch.Generator):
    """One-hot appearance (B, 4, 2, 40), components (B, 8, 160), the key (B,): a key and three rings, apart."""
    appearance = torch.zeros(count, ROWS, COLUMNS, dtype=torch.long)
    components = torch.ones(count, ROWS, COLUMNS, dtype=torch.int32)
    keys = torch.randint(2, (count,), generator=generator)
    for image in range(count):
        for number, place in enumerate(torch.randperm(COLUMNS // 4, generator=generator)[:4].tolist()):
            cells = (image, slice(None), slice(4 * place, 4 * place + 2))
            appearance[cells] = RING if number else KEY + keys[image]
            components[cells] = number + 2
    components = components.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)
    return F.one_hot(appearance, 4).permute(0, 3, 1, 2).float(), components, keys


@pytest.mark.parametrize(("with_sgr", "low", "high"), [(True, 0.95, 1.0), (False, 0.3, 0.7)])
def test_the_key_reaches_the_rings_only_with_sgr(with_sgr, low, high):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    stem, head = nn.Conv2d(4, 32, 1), nn.Conv2d(32, 2, 1)
    sgr = SGR({"p3": ShapeSpec(channels=32, stride=STRIDE)}, num_tokens=8, token_dim=32, encoder_layers=1, num_heads=2)
    criterion = SGRCriterion()
    parameters = [*stem.parameters(), *head.parameters(), *sgr.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=4e-3)

    def predict(appearance):
        sizes = torch.tensor([[ROWS * STRIDE, COLUMNS * STRIDE]] * len(appearance))
        features = {"p3": stem(appearance)}
        output = sgr(features, sizes)
        return head((output.features if with_sgr else features)["p3"]), output

    for _ in range(120):
        appearance, components, keys = strips(16, generator)
        logits, output = predict(appearance)
        loss = F.cross_entropy(logits, keys[:, None, None].expand(-1, ROWS, COLUMNS), reduction="none")
        rings = appearance[:, RING]
        total = (loss * rings).sum() / rings.sum() + sum(
            criterion(output, components, [torch.zeros(5, dtype=torch.int64)] * 16).values()
        )
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    with torch.no_grad():
        appearance, _, keys = strips(100, generator)
        right = predict(appearance)[0].argmax(1) == keys[:, None, None]
    accuracy = right[appearance[:, RING] > 0].float().mean()
    assert low <= accuracy <= high
