"""Runs of train_net.py inside a test."""

from types import SimpleNamespace

import torch

import train_net


def run(config_file, *opts, **flags):
    args = {"eval_only": False, "resume": False, "num_gpus": 0, **flags}
    return train_net.main(SimpleNamespace(config_file=str(config_file), opts=[str(o) for o in opts], **args))


def weights(folder, name="model_final.pth"):
    return torch.load(folder / name, weights_only=True)["model"]
