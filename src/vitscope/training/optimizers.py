"""The optimiser and the learning rates of a recipe."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vitscope.training.parameters import parameter_groups
from vitscope.training.recipe import Recipe
from vitscope.training.schedule import learning_rate, step_rate, warmup_rate


def make_optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """Torch's AdamW or SGD over the trained weights, in the groups of :func:`parameter_groups`."""
    groups: list[dict[str, Any]] = parameter_groups(module, recipe.weight_decay, recipe.layer_decay)
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups)


def rates(recipe: Recipe, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate of each step (from 0): a linear warm-up, then the recipe's schedule."""
    steps, warmup = steps_per_epoch * recipe.epochs, round(recipe.warmup * steps_per_epoch)
    highest, final = recipe.learning_rate, recipe.final_learning_rate

    def rate(step: int) -> float:
        if recipe.schedule == "cosine":
            return learning_rate(step, steps, warmup, highest, final)
        rising = warmup_rate(step, warmup, highest)
        if rising is not None or recipe.schedule == "constant":
            return highest if rising is None else rising
        return step_rate(step, steps_per_epoch, recipe.milestones, recipe.step_factor, highest)

    return rate
