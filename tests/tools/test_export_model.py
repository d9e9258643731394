"""tools/export_model.py, sgr_d2/engine/inference/export.py and class_scores.py on toy models."""

import json

import export_model
import pytest
import torch
from detectron2.modeling import build_model
from timm.layers import Conv2dSame
from torch import nn
from toy_checkpoint import CLASSES, write_checkpoint
from toy_heads import with_head
from toys import randomize_zeros, toy_cfg

from sgr_d2.engine.inference import export
from sgr_d2.engine.inference.class_scores import ClassScores, fix_same_padding, query_scores
from sgr_d2.engine.inference.export import ExportError, choose_sizes
from sgr_d2.modeling.deeplab import WindowPool


def toy_model(**options):
    torch.manual_seed(0)
    model = build_model(toy_cfg(**options)).eval()
    randomize_zeros(model)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model.pth")


def run(checkpoint, output, *arguments):
    return export_model.main(["--weights", str(checkpoint), "--output", str(output), *map(str, arguments)])


@pytest.mark.parametrize("sgr", [False, True])
@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
@torch.no_grad()
def test_the_wrapper_gives_the_scores_of_the_model(sgr, image_format):
    model = toy_model(sgr=sgr)
    images = torch.rand(1, 3, 64, 96) * 255
    pixels = images[0] if image_format == "RGB" else images[0, [2, 1, 0]]
    expected = model([{"image": pixels}])[0]["sem_seg"][None]
    torch.testing.assert_close(ClassScores(model, image_format=image_format)(images), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_peer_is_part_of_what_is_exported():
    cfg = toy_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PEER.NAME, cfg.MODEL.PEER.DIM = "PeerSegmentor", "NonLocal", 8
    model = build_model(cfg).eval()
    randomize_zeros(model)
    images = torch.rand(1, 3, 64, 96) * 255
    expected = model([{"image": images[0]}])[0]["sem_seg"][None]
    torch.testing.assert_close(ClassScores(model)(images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (3, 1, 1), (1, 2, 1), (3, 2, 2)])
def test_constant_padding_is_that_of_timm(kernel, stride, dilation):
    model = nn.Sequential(Conv2dSame(2, 3, kernel, stride=stride, dilation=dilation))
    maps = torch.randn(1, 2, 12, 8)
    expected = model(maps)
    fix_same_padding(model)
    assert not any(type(module) is Conv2dSame and name != "0.conv" for name, module in model.named_modules())
    assert torch.equal(model(maps), expected)


def test_query_scores_by_hand():
    # two queries, two classes; both masks are sure; classes with probabilities (3/4, 1/4, 0) and (0, 1/2, 1/2)
    probs = torch.tensor([[[0.75, 0.25, 1e-12], [1e-12, 0.5, 0.5]]])
    masks = torch.tensor([[[[50.0, -50.0]], [[-50.0, 50.0]]]])
    scores = query_scores(probs.log(), masks, (1, 2))
    torch.testing.assert_close(scores, torch.tensor([[[[0.75, 0.0]], [[0.25, 0.5]]]]))


def test_exact_sigmoid_keeps_faint_values():
    x = torch.tensor([-torch.inf, -80.0, -30.0, -2.0, 0.0, 3.0, torch.inf])
    torch.testing.assert_close(export.exact_sigmoid(x), x.sigmoid(), rtol=1e-5, atol=0)


def test_sizes():
    wrapper = ClassScores(toy_model())
    assert choose_sizes(wrapper) == ((128, 192), (64, 64), (8192, 8192))
    assert choose_sizes(wrapper).to_check() == [(128, 192), (64, 64), (192, 128)]
    assert choose_sizes(wrapper, (96, 64), fixed=True).to_check() == [(96, 64)]
    for size, message in (((96, 65), r"width 65: it must be a multiple of 32"), ((32, 96), r"height 32.*at least 64")):
        with pytest.raises(ValueError, match=message):
            choose_sizes(wrapper, size)


def test_what_the_file_takes_and_gives_is_told():
    told = export_model.how_to_use(choose_sizes(ClassScores(toy_model())), 32)
    assert "multiples of 32 from 64 x 64 to 8192 x 8192: resize or pad" in told
    assert '"scores"' in told and "neither regions nor tokens" in told


def test_a_pooling_window_bounds_the_size():
    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = WindowPool((5, 9))

        def forward(self, features):
            return self.pool(features["res4"]), {}  # stride 16: a window of 80 x 144 pixels

    model = toy_model(sgr=False)
    model.sem_seg_head = Pooling()
    assert choose_sizes(ClassScores(model)).smallest == (96, 160)
    model.sem_seg_head.pool = WindowPool((4, 6))  # 64 x 96 pixels, of which one cell would be left
    assert choose_sizes(ClassScores(model)).smallest == (96, 128)


def test_what_cannot_be_exported_says_so():
    class Choosing(nn.Module):
        def forward(self, features):
            scores = features["res4"]
            return (scores if scores.sum() > 0 else -scores), {}

    model = toy_model(sgr=False)
    model.sem_seg_head = Choosing()
    wrapper = ClassScores(model)
    with pytest.raises(ExportError, match=r"torch.export cannot make a graph of this model.*\(--fixed\)"):
        export.to_program(wrapper, choose_sizes(wrapper))


def test_a_graph_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    wrapper = ClassScores(toy_model(sgr=False))
    program = export.to_program(wrapper, choose_sizes(wrapper, (64, 64), fixed=True))
    monkeypatch.setattr(torch.export, "save", lambda *_, **__: 1 / 0)  # no graph of ours is known that it refuses
    with pytest.raises(ExportError, match=r"torch\.export cannot .*ZeroDivisionError.*\(--fixed\)"):
        export.save(program, tmp_path / "model.pt2", {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_only_begun_leaves_the_former_one(checkpoint, tmp_path, monkeypatch):
    def begin(program, path, **_):
        path.write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(torch.export, "save", begin)
    (tmp_path / "model.pt2").write_bytes(b"former")
    assert run(checkpoint, tmp_path / "model.pt2", "--fixed") == 2
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("model.pt2", b"former")]


@pytest.mark.slow
@pytest.mark.parametrize("sgr", [False, True])
def test_mask2former_of_any_size_in_torch_export(tmp_path, sgr):
    """With two layers of the encoder, sizes would be inputs of parts of the graph, as numbers that cannot be saved."""
    torch.manual_seed(0)
    cfg = with_head(toy_cfg(sgr=sgr), "MaskFormerHead")
    cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS = 2
    model = build_model(cfg).eval()
    wrapper = ClassScores(model)
    sizes = choose_sizes(wrapper)
    export.save(export.to_program(wrapper, sizes), tmp_path / "model.pt2", {})
    assert export.largest_difference(model, wrapper, tmp_path / "model.pt2", sizes) < 1e-4


def test_wrong_command_lines(checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(checkpoint, tmp_path / "model.trt")
    assert "must end in .onnx or .pt2" in capsys.readouterr().err
    assert run(tmp_path / "absent.pth", tmp_path / "model.pt2") == 2
    assert "absent.pth" in capsys.readouterr().err
    assert run(checkpoint, tmp_path / "model.pt2", "--size", 65, 64) == 2
    assert "height 65: it must be a multiple of 32" in capsys.readouterr().err


def test_a_fixed_graph_and_its_check(checkpoint, tmp_path, capsys):
    path = tmp_path / "new" / "model.pt2"
    size = ("--opts", "INPUT.MIN_SIZE_TEST", 48, "INPUT.MAX_SIZE_TEST", 90)
    assert run(checkpoint, path, "--fixed", "--size", 64, 96, *size) == 0
    printed, said = capsys.readouterr()
    assert printed.strip().splitlines()[-1].startswith("The file takes one image whose height and width are 64 x 96: ")
    phases = ("load", "trace the graph at 64 x 96", "write the .pt2 file", "compare its scores with the model's at 64")
    assert [phase for phase in phases if f"] {phase}" not in said] == []
    program = torch.export.load(path, extra_files=(extra := {"information.json": ""}))
    information = json.loads(extra["information.json"])
    assert json.loads(information["classes"]) == CLASSES and information["multiple_of"] == "32"
    assert [information[key] for key in ("min_size_test", "max_size_test", "ignore_label")] == ["48", "90", "255"]
    assert program.module()(torch.zeros(1, 3, 64, 96)).shape == (1, 5, 64, 96)
    before = path.read_bytes()
    assert run(checkpoint, path, "--fixed", "--size", 64, 96, "--tolerance", -1) == 1
    assert "more than --tolerance -1; nothing was written" in capsys.readouterr().out
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["model.pt2"]


@pytest.mark.slow
@pytest.mark.parametrize("sgr", [False, True])
def test_onnx_of_any_size(tmp_path, sgr, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = toy_model(sgr=sgr)
    if sgr:  # faint regions, as those of trained models: onnxruntime's own sigmoid would be seen
        nn.init.constant_(model.sgr.region_predictor.bias, -16.0)
    wrapper = ClassScores(model)
    sizes = choose_sizes(wrapper)
    path = tmp_path / "model.onnx"
    export.save(export.to_program(wrapper, sizes), path, {"classes": json.dumps(CLASSES)})
    assert export.largest_difference(model, wrapper, path, sizes) < 1e-3
    session = onnxruntime.InferenceSession(path)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == CLASSES
    scores = session.run(None, {"images": torch.zeros(1, 3, 96, 160).numpy()})[0]
    assert scores.shape == (1, 5, 96, 160)


@pytest.mark.slow
def test_any_size_in_torch_export(checkpoint, tmp_path, capsys):
    assert run(checkpoint, tmp_path / "model.pt2") == 0
    assert "multiples of 32 from 64 x 64 to 8192 x 8192" in capsys.readouterr().out


def test_deeplab_of_any_size_in_torch_export(tmp_path):
    cfg = toy_cfg(sgr=False)
    cfg.MODEL.SEM_SEG_HEAD.merge_from_list(
        ["NAME", "AnySizeDeepLabV3Head", "IN_FEATURES", ["res4"], "COMMON_STRIDE", 16]
    )
    cfg.MODEL.SEM_SEG_HEAD.merge_from_list(["ASPP_CHANNELS", 8, "ASPP_DILATIONS", [1, 2, 3], "CONVS_DIM", 8])
    cfg.INPUT.CROP.merge_from_list(["ENABLED", True, "TYPE", "absolute", "SIZE", (64, 96)])
    model = build_model(cfg).eval()
    wrapper = ClassScores(model)
    sizes = choose_sizes(wrapper)
    export.save(export.to_program(wrapper, sizes), tmp_path / "model.pt2", {})
    assert export.largest_difference(model, wrapper, tmp_path / "model.pt2", sizes) < 1e-3
