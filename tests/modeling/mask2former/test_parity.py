"""Equal to the official code, from features to losses, gradients and the three outputs."""

import parity
import pytest
import torch

from sgr_d2.modeling.mask2former.head import MaskFormerHead, OutputOptions
from sgr_d2.modeling.mask2former.structures import QueryPrediction
from sgr_d2.modeling.mask2former.targets import LabelMapTargets

OUTPUTS, LOSSES, GRADIENTS = 3e-5, 1e-5, 1e-4

full = pytest.mark.skipif(not parity.has_full(), reason="the larger files are not beside the repository")
RECORDS = [
    pytest.param(parity.load, "main", id="main"),
    pytest.param(parity.load, "variant", id="variant"),
    pytest.param(parity.load_full, "main", id="full-main", marks=[pytest.mark.data, full]),
    pytest.param(parity.load_full, "variant", id="full-variant", marks=[pytest.mark.data, full]),
]
each_record = pytest.mark.parametrize(("loader", "name"), RECORDS)


def run(record):
    """(modules by prefix, inputs of which gradients are known, prediction)."""
    predictor = parity.build_predictor(record)
    if record.features is None:
        return {parity.PREDICTOR: predictor}, {}, predictor(parity.pixel_features(record))
    pixel_decoder = parity.build_pixel_decoder(record)
    features = {name: value.clone().requires_grad_() for name, value in record.features.items()}
    prediction = predictor(pixel_decoder(features))
    return {parity.PREDICTOR: predictor, parity.PIXEL_DECODER: pixel_decoder}, features, prediction


@each_record
def test_outputs_of_every_layer(loader, name):
    record = loader(name)
    _, _, prediction = run(record)
    step = record.step
    assert len(prediction.class_logits) == record.layers
    for layer in range(record.layers):
        torch.testing.assert_close(prediction.class_logits[layer], record.logits[layer], rtol=0, atol=OUTPUTS)
        if record.masks[layer] is not None:
            masks = prediction.masks(layer)[..., ::step, ::step]
            torch.testing.assert_close(masks, record.masks[layer], rtol=0, atol=OUTPUTS)


@each_record
def test_matching_losses_and_gradients(loader, name):
    record = loader(name)
    modules, features, prediction = run(record)
    criterion, targets = parity.build_criterion(record), parity.build_targets(record)

    costs = criterion.matcher.costs(prediction, targets, criterion.source)
    matching = criterion.matcher(prediction, targets, criterion.source)
    for layer in range(record.layers):
        for image, pair in enumerate(record.matching[parity.layer_name(record, layer)]):
            count = pair["cost"].shape[1]
            torch.testing.assert_close(costs[layer, image, :, :count], pair["cost"], rtol=0, atol=OUTPUTS)
            assert matching.queries[image][layer].tolist() == pair["src"].tolist()
            assert matching.slots[image][layer].tolist() == pair["tgt"].tolist()

    losses = criterion(prediction, targets)
    assert losses.keys() == record.losses.keys()
    for key, value in record.losses.items():
        torch.testing.assert_close(losses[key].detach(), value, rtol=0, atol=LOSSES)

    sum(losses.values()).backward()
    norms = record.grad["param_norm"]
    for prefix, module in modules.items():
        for key, parameter in module.named_parameters():
            norm = norms[prefix + key]
            if key.startswith("input_proj") and key.endswith("0.bias") and prefix == parity.PIXEL_DECODER:
                assert parameter.grad.abs().max() < 1e-4  # zero in exact arithmetic: a group norm follows
            else:
                assert parameter.grad.norm().item() == pytest.approx(norm.item(), rel=GRADIENTS, abs=1e-6), key
            if prefix + key in record.grad.get("params", {}):
                expected = record.grad["params"][prefix + key]
                assert (parameter.grad - expected).norm() <= GRADIENTS * expected.norm() + 1e-4
    for key, expected in record.grad.get("features", {}).items():
        if features:
            assert (features[key].grad - expected).norm() <= GRADIENTS * expected.norm()


@each_record
def test_outputs_of_inference(loader, name):
    record = loader(name)
    expected = record.inference
    if expected is None:
        pytest.skip("this record has none")
    parameters = record.settings["inference"]
    size, output = tuple(parameters["image_size"]), tuple(parameters["output_size"])
    masks = expected["mask_pred"]
    # as mask features and the unit embeddings of a prediction, so that their product is the mask
    prediction = QueryPrediction(
        expected["mask_cls"][None, None], torch.eye(len(masks))[None, None], masks[None].contiguous()
    )

    def outputs(**options) -> dict:
        head = MaskFormerHead(
            pixel_decoder=torch.nn.Identity(),
            predictor=torch.nn.Identity(),
            criterion=parity.build_criterion(record),
            num_classes=record.settings["NUM_CLASSES"],
            outputs=OutputOptions(
                object_threshold=parameters["object_mask_threshold"],
                overlap_threshold=parameters["overlap_threshold"],
                max_instances=parameters["detections_per_image"],
                thing_classes=(0, 1, 2, 3),
                **options,
            ),
        )
        return head.postprocess(prediction, 0, size, *output)

    step = record.step
    for options, key in (({}, "sem_seg"), ({"resize_masks_first": True}, "sem_seg_postprocess_before")):
        scores = outputs(**options)["sem_seg"]
        assert scores.shape == (record.settings["NUM_CLASSES"], *output)
        torch.testing.assert_close(scores[..., ::step, ::step], expected[key], rtol=0, atol=OUTPUTS)

    ids, segments = outputs(panoptic=True)["panoptic_seg"]
    assert torch.equal(ids, expected["panoptic_seg"])
    rows = [[s["id"], int(s["isthing"]), s["category_id"]] for s in segments]
    assert rows == expected["segments_info"].tolist()

    instances = outputs(instance=True)["instances"]
    torch.testing.assert_close(instances.scores, expected["instance_scores"], rtol=0, atol=OUTPUTS)
    assert torch.equal(instances.pred_classes, expected["instance_classes"])
    assert torch.equal(instances.pred_masks, expected["instance_masks"])


def test_label_map_gives_the_losses_of_its_masks():
    """One scene as masks and as a label map, ignored pixels as background: the same losses."""
    record = parity.load("main")
    _, _, prediction = run(record)
    labels = torch.full((3, *record.settings["image_size_padded"]), 255)
    labels[0, 10:60, 20:90], labels[0, 60:101, 33:], labels[0, :10] = 3, 0, 6
    labels[2, 77:, :50], labels[2, :5, :5] = 1, 2
    shown = [image.unique()[:-1] for image in labels]
    masks = [image == classes[:, None, None] for image, classes in zip(labels, shown, strict=True)]
    record.targets = [{"labels": c, "masks": m} for c, m in zip(shown, masks, strict=True)]

    def losses(targets):
        criterion = parity.build_criterion(record)
        generator = torch.Generator().manual_seed(0)
        criterion.source = lambda purpose, layer, shape, device: torch.rand(*shape, 2, generator=generator)
        return criterion(prediction, targets)

    expected = losses(parity.build_targets(record))
    for compact in (True, False):
        targets = LabelMapTargets(labels, num_classes=7, ignore_as_background=True, compact=compact)
        torch.testing.assert_close(losses(targets), expected, rtol=0, atol=2e-6)
