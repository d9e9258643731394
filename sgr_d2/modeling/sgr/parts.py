"""Which parts of a model it has because of SGR."""

# SGR itself, and the layers of Mask2Former in which the queries attend to its tokens (`MODEL.SGR.QUERY_ATTENTION`).
SGR_PARTS = frozenset({"sgr", "transformer_token_attention_layers"})


def is_part_of_sgr(name: str) -> bool:
    """Whether the module, parameter or buffer ``name`` (with dots) is inside one of `SGR_PARTS`."""
    return not SGR_PARTS.isdisjoint(name.split("."))
