"""Mask2Former head in pure PyTorch, with the parameter names and config keys of the official code."""
