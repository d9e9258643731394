"""Options of the SGR criterion: from the config to the losses, each weight to its own loss."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from toys import toy_cfg

from sgr_d2.modeling.progress import share_done
from sgr_d2.modeling.sgr import SGRCriterion
from sgr_d2.structures import SGROutput

ONES = {"component_weight": 1.0, "diversity_weight": 1.0, "class_weight": 1.0, "token_dim": 4, "num_classes": 2}


def losses_of(*args, **options):
    """The losses of an image of three components, some steps after the start of a training."""
    torch.manual_seed(0)
    ids = torch.zeros(1, 12, 12, dtype=torch.int32)
    ids[0, :6], ids[0, 6:, :6], ids[0, 7:, 7:] = 1, 2, 3
    valid = torch.ones(1, 1, 12, 12, dtype=torch.bool)
    output = SGROutput({}, torch.randn(1, 5, 12, 12), torch.randn(1, 5, 4), valid, 1)
    with EventStorage(3):
        return SGRCriterion(*args, **options)(output, ids, [torch.tensor([0, 1, 0])])


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("component_weight", "loss_component"),
        ("diversity_weight", "loss_diversity"),
        ("class_weight", "loss_token_class"),
    ],
)
def test_each_weight_scales_its_own_loss_and_no_other(option, name):
    plain, changed, without = (losses_of(**ONES | {option: weight}) for weight in (1.0, 0.3, 0.0))
    assert set(plain) == {"loss_component", "loss_diversity", "loss_token_class"}
    for key, loss in plain.items():
        assert loss > 0
        torch.testing.assert_close(changed[key], 0.3 * loss if key == name else loss)
    others = {key: loss for key, loss in plain.items() if key != name}
    torch.testing.assert_close(without, others)


def test_the_class_loss_alone():
    alone = losses_of(**ONES | {"component_weight": 0.0, "diversity_weight": 0.0})
    assert alone == {"loss_token_class": losses_of(**ONES)["loss_token_class"]}


@pytest.mark.parametrize("sizes", [{}, {"token_dim": 4}, {"num_classes": 2}])
def test_the_class_loss_asks_for_the_sizes_of_its_layer(sizes):
    with pytest.raises(ValueError, match=r"MODEL\.SGR\.CLASS_WEIGHT.*token_dim and num_classes"):
        SGRCriterion(class_weight=1.0, **sizes)


@pytest.mark.parametrize(("option", "value"), [("assignment", "hungarian"), ("union", "sum"), ("area_power", 1.0)])
def test_each_option_changes_the_component_loss(option, value):
    assert abs(losses_of(**{option: value})["loss_component"] - losses_of()["loss_component"]) > 1e-4


def test_every_key_of_the_config_reaches_the_losses():
    cfg, options = toy_cfg(), {"max_iter": 12, "token_dim": 4, "num_classes": 2}
    cfg.SOLVER.MAX_ITER, cfg.MODEL.SGR.TOKEN_DIM = 12, 4
    for key, value in {
        "COMPONENT_WEIGHT": 0.7,
        "DIVERSITY_WEIGHT": 0.3,
        "CLASS_WEIGHT": 0.4,
        "ASSIGNMENT": "best",
        "UNION": "sum",
        "AREA_POWER": 0.5,
    }.items():
        assert cfg.MODEL.SGR[key] != value
        cfg.MODEL.SGR[key] = options[key.lower()] = value
    cfg.MODEL.SGR.LOSS_DECAY = options["decay"] = 0.6
    assert losses_of(cfg, num_classes=2) == losses_of(**options)


def test_autocast_changes_no_bit_of_the_losses():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = losses_of(**ONES)
    assert under == losses_of(**ONES)


def test_the_share_of_a_schedule_that_is_done():
    with EventStorage(3):
        assert [share_done(steps) for steps in (12, 3, 2, 0)] == [0.25, 1.0, 1.0, 0.0]
    assert share_done(12) == 0.0
