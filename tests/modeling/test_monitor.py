import pytest
import torch
from detectron2.utils.events import EventStorage
from toy_regions import logits_of, output_of

from sgr_d2.modeling.monitor import PERIOD, log_regions
from sgr_d2.modeling.randomness import own_random_numbers


def test_what_the_log_tells_about_regions():
    regions = torch.zeros(1, 3, 2, 4)
    regions[0, 0], regions[0, 1, 0, 0] = 0.5, 1.0  # half of every cell; one of the eight cells; nothing
    inputs = [{"component_classes": torch.zeros(4), "components_small": 3, "components_cut": 1}]
    with EventStorage(PERIOD - 1) as storage:
        log_regions(output_of(logits_of(regions)), inputs)
        found = {name: value for name, (value, _) in storage.latest().items()}
    assert found.pop("sgr/active_token_rate") == pytest.approx(2 / 3)
    assert found.pop("sgr/region_mass") == pytest.approx((0.5 + 1 / 8 + 0) / 3, abs=1e-5)
    assert found == {"sgr/components_per_image": 4, "sgr/components_small": 3, "sgr/components_cut": 1}


def test_the_log_is_written_with_that_of_detectron2():
    with EventStorage(PERIOD) as storage:
        log_regions(output_of(torch.zeros(1, 1, 2, 2)), [{}])
        assert not storage.latest()


def test_own_random_numbers_are_others_and_leave_those_outside_as_they_were():
    torch.manual_seed(0)
    expected = torch.rand(8)
    torch.manual_seed(0)
    with own_random_numbers():
        inside = torch.rand(8)
    assert torch.equal(torch.rand(8), expected) and not torch.equal(inside, expected)
    torch.manual_seed(1)
    with own_random_numbers():
        assert not torch.equal(torch.rand(8), inside)
