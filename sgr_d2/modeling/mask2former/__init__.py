"""Mask2Former head in pure PyTorch; names of parameters and config keys are those of the official code."""
