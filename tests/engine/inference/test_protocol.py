import pytest
from detectron2.evaluation import inference_context
from detectron2.modeling import build_model
from torch import nn
from toy_heads import with_head
from toys import toy_cfg

from sgr_d2.engine import load_config
from sgr_d2.engine.inference.protocol import loader_config, with_protocol
from sgr_d2.engine.run import evaluate_checkpoint, train
from sgr_d2.modeling.sliding_window import SlidingWindow
from sgr_d2.modeling.test_time_augmentation import TestTimeAugmentation


def test_the_model_itself_unless_asked():
    model = build_model(toy_cfg())
    assert with_protocol(toy_cfg(), model) is model
    assert loader_config(toy_cfg()).INPUT.MIN_SIZE_TEST == toy_cfg().INPUT.MIN_SIZE_TEST


def test_augmentation_goes_around_the_windows():
    cfg = toy_cfg()
    cfg.TEST.SLIDING_WINDOW.ENABLED = cfg.TEST.AUG.ENABLED = True
    wrapped = with_protocol(cfg, build_model(cfg))
    assert isinstance(wrapped, TestTimeAugmentation)
    assert not wrapped.probabilities
    assert isinstance(wrapped.model, SlidingWindow)
    assert wrapped.model.size == (512, 1024)
    assert loader_config(cfg).INPUT.MIN_SIZE_TEST == 0


def test_a_model_without_semantic_head_is_refused():
    cfg = toy_cfg()
    cfg.TEST.AUG.ENABLED = True
    with pytest.raises(ValueError, match=r"TEST.AUG need a semantic segmentor; MODEL.META_ARCHITECTURE is SGRSegm"):
        with_protocol(cfg, nn.Identity())


@pytest.mark.parametrize("way", ["AUG", "SLIDING_WINDOW"])
def test_outputs_other_than_class_scores_are_refused_or_told(way, caplog):
    cfg = with_head(toy_cfg(), "MaskFormerHead")
    test, cfg.TEST[way].ENABLED = cfg.MODEL.MASK_FORMER.TEST, True
    test.INSTANCE_ON = True
    with_protocol(cfg, build_model(cfg))
    assert "return class scores alone: turn MODEL.MASK_FORMER.TEST.INSTANCE_ON" in caplog.text
    test.SEMANTIC_ON = False
    with pytest.raises(ValueError, match=r"need class scores: set MODEL\.MASK_FORMER\.TEST\.SEMANTIC_ON to True"):
        with_protocol(cfg, build_model(cfg))


def test_evaluation_with_windows_and_scales_has_all_figures(config_file):

    cfg = load_config(str(config_file), ["SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()"])
    train(cfg)
    opts = ["MODEL.WEIGHTS", f"{cfg.OUTPUT_DIR}/model_final.pth", "TEST.SLIDING_WINDOW.ENABLED", True]
    opts += ["TEST.SLIDING_WINDOW.SIZE", "[64, 64]", "TEST.SLIDING_WINDOW.STRIDE", "[32, 32]"]
    opts += ["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(48, 72)"]
    results = evaluate_checkpoint(load_config(str(config_file), opts))
    assert 0 <= results["sem_seg"]["mIoU"] <= 100
    assert results["token_semantics"]["S_C"] >= 0


@pytest.mark.parametrize("training", [True, False])
def test_an_evaluation_leaves_the_model_in_its_mode(training):
    cfg = toy_cfg()
    cfg.TEST.SLIDING_WINDOW.ENABLED = cfg.TEST.AUG.ENABLED = True
    model = build_model(cfg).train(training)
    model.backbone.eval()
    wrapped = with_protocol(cfg, model)
    assert model.training is training and not model.backbone.training  # a part may be in a mode of its own
    with inference_context(wrapped):
        assert not model.training
    assert model.training is training
