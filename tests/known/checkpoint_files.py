"""Small models of timm's, and files of their weights as trainers write them."""

import timm
import torch

SMALL = {"depth": 1, "embed_dim": 24, "num_heads": 3}
"""What makes a ``vit_tiny_patch16_224`` a small one."""
NAME = "timm/vit_tiny_patch16_224"


def small(**more):
    return timm.create_model("vit_tiny_patch16_224", **{**SMALL, "num_classes": 4, **more}).eval()


def weights(seed, **more):
    torch.manual_seed(seed)
    return small(**more).state_dict()


def behind(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def holds(subject, state):
    """Whether a subject's weights are these, bit by bit, and no others."""
    own = subject.module.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)
