"""What SGR, its losses and the segmentor say of wrong input."""

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from toys import toy_cfg, toy_features, toy_input, toy_shape

from sgr_d2.modeling.sgr import SGR, SGRCriterion

LEVELS = ("res2", "res3")  # strides 4 and 8


@pytest.fixture
def sgr():
    torch.manual_seed(0)
    return SGR(toy_shape(*LEVELS), num_tokens=6, token_dim=16, num_heads=2).eval()


@pytest.fixture
def features():
    torch.manual_seed(0)
    return toy_features(2, 64, 96, *LEVELS)


def test_sizes_may_be_a_list(sgr, features):
    sizes = [(64, 96), (33, 65)]
    assert torch.equal(sgr(features, sizes).tokens, sgr(features, torch.tensor(sizes)).tokens)
    for same in ([torch.Size(s) for s in sizes], np.array(sizes)):
        assert torch.equal(sgr(features, same).tokens, sgr(features, sizes).tokens)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            [(96, 64), (64, 96)],
            r"image size \(96, 64\) does not fit res2 of 64x96 pixels.*\(height, width\)",
        ),
        ([(64, 96), (64, 0)], r"image size \(64, 0\) does not fit"),
        ([(64, 96), (64,)], r"image size \(64,\) does not fit"),
        ([(64, 96)], r"image sizes of shape \(1, 2\) for 2 images"),
        (torch.tensor([[64, 96]]), r"image sizes of shape \(1, 2\) for 2 images"),
        (torch.tensor([64, 96]), r"image sizes of shape \(2,\) for 2 images"),
        ((64, 96), r"image size 64 does not fit .*a \(height, width\) in pixels, before padding, for each image"),
    ],
)
def test_sizes_that_do_not_fit(sgr, features, sizes, message):
    with pytest.raises(ValueError, match=message):
        sgr(features, sizes)


def test_without_sizes_images_fill_the_maps(sgr, features):
    assert torch.equal(sgr(features).tokens, sgr(features, [(64, 96)] * 2).tokens)


def test_features_of_other_channels_or_no_dict(sgr, features):
    with pytest.raises(ValueError, match=r"the features are a list: give a dict of the levels \['res2', 'res3'\]"):
        sgr(list(features.values()))
    found = features["res3"]
    for wrong in (found[:, :-1], found[0]):
        with pytest.raises(ValueError, match=r"res3 is \(.*its ShapeSpec .*output_shape\(\)\) says \(B, .*, H, W\)"):
            sgr(features | {"res3": wrong})


@pytest.mark.parametrize("shape", [ShapeSpec(channels=8), ShapeSpec(stride=8), 8])
def test_shapes_without_channels_or_stride(shape):
    with pytest.raises(ValueError, match=r"the shape of c3 is .*give ShapeSpec\(channels=..., stride=...\)"):
        SGR({"c3": shape})


def test_parameters_of_another_precision_are_refused(sgr, features):
    with pytest.raises(ValueError, match=r"parameters of SGR are torch.float64: keep them float32"):
        sgr.double()({name: f.double() for name, f in features.items()}, [(64, 96), (33, 65)])


def test_export_of_any_number_of_images(sgr, features):
    count, sizes = torch.export.Dim("count", min=2, max=64), torch.tensor([[64, 96], [33, 65]])
    shapes = ({name: {0: count} for name in features}, {0: count})
    exported = torch.export.export(sgr, (features, sizes), dynamic_shapes=shapes).module()
    more = {name: torch.cat([f, f[:1]]) for name, f in features.items()}
    three = torch.cat([sizes, sizes[:1]])
    torch.testing.assert_close(exported(more, three).tokens, sgr(more, three).tokens, rtol=1e-4, atol=1e-5)


def test_targets_that_only_some_images_have():
    model = build_model(toy_cfg())
    batch = [toy_input(64, 64), toy_input(64, 64)]
    del batch[0]["components"]
    batch[0]["file_name"] = "first.png"
    with pytest.raises(ValueError, match=r'first.png: no "components", which other images of the batch have'):
        model(batch)


def test_levels_that_do_not_fit(sgr, features):
    sizes = torch.tensor([[64, 96]] * 2)
    with pytest.raises(
        ValueError, match=r"reads \['res2', 'res3'\], but the features are \['res2'\]: \['res3'\] is missing"
    ):
        sgr({"res2": features["res2"]}, sizes)
    for other in (features["res3"][:1], features["res3"][..., :7, :], torch.cat([features["res3"]] * 2, dim=3)):
        with pytest.raises(
            ValueError, match=r"res2 of stride 4 is \(2, .*, 16, 24\), but res3 of stride 8 is .*same images"
        ):
            sgr(features | {"res3": other}, sizes)
    # the last cell of a coarse level may be in part outside the finest one, or missing
    odd = toy_features(2, 64, 92, "res2") | {"res3": features["res3"]}
    assert sgr(odd, torch.tensor([[64, 92]] * 2)).features["res2"].shape[-2:] == (16, 23)


def test_components_that_do_not_fit(sgr, features):
    output, criterion = sgr(features, [(64, 96)] * 2), SGRCriterion()
    ids, classes = torch.ones(2, 64, 96, dtype=torch.int32), [torch.tensor([0])] * 2
    assert criterion(output, ids, classes)["loss_component"] > 0
    for wrong in ((ids.float(), classes), (ids, classes[:1]), (ids[:1], classes)):
        with pytest.raises(ValueError, match=r"for 2 images: give integer ids \(B, H, W\)"):
            criterion(output, *wrong)


class Returning(torch.nn.Module):
    """A head that returns ``answer``, or what it makes of the features."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, features, targets=None):
        return self.answer(features) if callable(self.answer) else self.answer


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (None, "NoneType"),
        (torch.zeros(1), "Tensor"),
        ({"loss": torch.zeros(1)}, "dict"),
        ((None, None), r"\(NoneType, NoneType\)"),
    ],
)
def test_heads_that_return_something_else(answer, kind):
    model = build_model(toy_cfg(sgr=False))
    model.sem_seg_head = Returning(answer)
    for mode in (True, False):
        with pytest.raises(ValueError, match=rf"Returning returned {kind}: a head returns \(None, losses\)"):
            model.train(mode)([toy_input(64, 64)])


@pytest.mark.parametrize("size", [(16, 24), (65, 90)])
def test_scores_of_another_size_would_be_misaligned(size):
    model = build_model(toy_cfg(sgr=False)).eval()
    model.sem_seg_head = Returning(lambda features: (torch.zeros(1, 5, *size), {}))
    with pytest.raises(ValueError, match=rf"Returning gives scores of {size[0]}x{size[1]} for a batch of 96x96 pixels"):
        model([{"image": torch.zeros(3, 65, 90)}])
