"""Recipes: everything besides the images that decides which weights a training ends with."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args, get_origin

from vitscope.measurement.bounds import COUNT, LARGEST, SHARE, Bounds, bounded_field, check_bounds
from vitscope.measurement.errors import UserError

Crop = Literal["auto", "padded", "resized", "none"]
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]
Strategy = Literal["auto", "ddp", "ddp_spawn"]

FREE = ("workers", "save_every", "cache_gib", "accelerator")
"""Fields that may change when a training is resumed: they say where and how fast, not what."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. The defaults are DeiT's (Touvron et al. 2021) at CIFAR scale."""

    model: str | None = None
    """``vit-micro`` (the default without a start), ``vit-tiny``, ``vit-small``, ``vit-base``, or ``timm/NAME`` such as
    ``timm/resnet18_cifar``."""
    image: int | None = bounded_field(None, COUNT)
    """Side of the input in pixels; by default the model's own."""
    channels: Literal[1, 3] | None = None
    """1 for grey images, 3 for colour; by default the start's own, or 3 without a start."""
    patch: int | None = bounded_field(None, COUNT)
    """Side of a patch in pixels; by default the model's own."""
    depth: int | None = bounded_field(None, Bounds(1, 10_000))
    """Number of blocks of the project's own ViT; by default that of the named size."""
    pool: Literal["class", "average"] | None = None
    """What the project's own ViT classifies: its class token or the mean patch; by default as the named size does."""
    registers: int | None = bounded_field(None, Bounds(0, LARGEST))
    """Number of register tokens of the project's own ViT; by default that of the named size."""
    objective: str = "classification"
    """What the training minimises, by name; ``distillation`` also needs a teacher."""
    validation: float = 0.0
    """Share of the images, in proportion to each class, that is held out to choose the epoch whose weights are saved;
    0 for none: the weights of the last epoch are saved."""
    label_noise: float = bounded_field(0.0, SHARE)
    """Share of the training images that are given a wrong class on purpose."""
    noise_kind: Literal["symmetric", "asymmetric"] = "symmetric"
    """Which wrong class: any other with equal probability, or the next one."""
    labels_from: str | None = None
    """File of other labels for the training images, in their order: ``.npy``, a JSON list, or one a line."""
    epochs: int = 10
    """Passes over the images."""
    batch: int = 128
    """Images per step, over all devices; the last batch of an epoch is left out if it is incomplete."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or stochastic gradient descent with momentum."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Whether SGD's momentum is Nesterov's."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    final_learning_rate: float = 1e-5
    """Learning rate at the end of the cosine."""
    milestones: tuple[float, ...] = ()
    """Epochs after which the learning rate of the schedule ``steps`` falls by its factor."""
    step_factor: float = bounded_field(0.1, Bounds(above=0, most=1))
    """Factor of the learning rate at each milestone of the schedule ``steps``."""
    warmup: float = 1.0
    """Epochs over which the learning rate rises from 0, step by step."""
    layer_decay: float = bounded_field(1.0, Bounds(above=0, most=1))
    """Factor of the learning rate from each layer to the one below it, from the head down; 1 for one rate."""
    freeze: tuple[str, ...] = ()
    """Weights that are not trained: patterns of their names, such as ``blocks.0.*``, or ``all-but-head``."""
    weight_decay: float = 0.05
    """Decay of matrices and kernels only, not of biases, norms, tokens or positions: decoupled for AdamW, in the
    gradient for SGD."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    label_smoothing: float = 0.1
    """Share of the target's mass that is spread over all classes."""
    drop_path: float = 0.0
    """Rate at which samples skip the last branch; rates grow linearly with depth from 0."""
    crop: Crop = "auto"
    """``padded`` (shifted within a border), ``resized`` (a random part, resized), ``none``; ``auto`` pads inputs of at
    most 64 pixels a side and resizes larger ones."""
    padding: float = 0.125
    """Border of a padded crop, as a share of the side."""
    least_area: float = 0.08
    """Smallest share of the image that a resized crop may show."""
    flip: bool = True
    """Whether half of the images are mirrored left to right."""
    randaugment: int = 9
    """Magnitude of RandAugment (Cubuk et al. 2020), from 1 to 10: two operations, standard deviation 1; 0 for none."""
    mixup: float = 0.8
    """Mixup's (Zhang et al. 2018) alpha; 0 for none."""
    cutmix: float = 1.0
    """CutMix's (Yun et al. 2019) alpha; 0 for none. If Mixup is on too, a fair coin picks one for each batch."""
    ema: float = 0.0
    """Decay of the moving average of the weights: ``min(ema, (1 + step) / (10 + step))``; 0 for no average. If it is
    on, the average is tested and saved."""
    seed: int = 0
    """Seed of everything random."""
    precision: Precision = "32-true"
    """Arithmetic of the forward and backward pass; the weights stay in float32."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train."""
    devices: int = 1
    """Number of devices that share each batch."""
    strategy: Strategy = "auto"
    """How several devices share a batch: ``ddp`` runs the same command once per device, ``ddp_spawn`` (what ``auto``
    means) starts its own processes."""
    workers: int = 0
    """Processes that prepare batches; 0 for the training process itself. The weights do not depend on it."""
    save_every: int = 200
    """Steps between saved states; the end of each epoch is saved too."""
    cache_gib: float = 2.0
    """Decoded images stay in memory if they fit into this many GiB; otherwise each is read again every epoch."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_choice(field.name, field.type, getattr(self, field.name))
        check_bounds(self, Bounds(most=LARGEST), Bounds(most=1e38))
        for name in ("epochs", "batch", "devices", "save_every"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("warmup", "weight_decay", "clip", "mixup", "cutmix", "workers", "cache_gib", "seed"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        for name in ("label_smoothing", "drop_path", "padding", "ema", "validation", "momentum"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        _check("randaugment", self.randaugment, 0 <= self.randaugment <= 10, "between 0 and 10")
        _check("least_area", self.least_area, 0 < self.least_area <= 1, "above 0 and at most 1")
        _check("learning_rate", self.learning_rate, self.learning_rate > 0, "above 0")
        rates = [time for time in self.milestones if not 0 < time < self.epochs]
        _check("milestones", ", ".join(f"{one:g}" for one in rates), not rates, f"between 0 and {self.epochs} epochs")
        if self.labels_from is not None and self.label_noise:
            raise UserError("label_noise and labels_from both replace the labels; set only one of them.")
        rate = self.final_learning_rate
        _check("final_learning_rate", rate, 0 <= rate <= self.learning_rate, f"from 0 to {self.learning_rate:g}")
        share = self.devices * (2 if self.mixes else 1)
        asked = f"a multiple of {share} ({self.devices} devices, {'mixing in pairs' if self.mixes else 'no mixing'})"
        _check("batch", self.batch, self.batch % share == 0, asked)

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0

    def resolve(self, start: tuple[str, int] | None = None) -> "Recipe":
        """The recipe with its model and channels filled in: those of the start (name, channels) if there is one.

        Raises ``UserError`` if the recipe sets another model or other channels, or a shape that the start fixes.
        """
        name, channels = start or (self.model or "vit-micro", self.channels or 3)
        if start is not None:
            said = {"model": (self.model, name), "channels": (self.channels, channels)}
            said |= {key: (getattr(self, key), None) for key in ("patch", "depth", "pool", "registers")}
            for key, (own, there) in said.items():
                if own is not None and own != there:
                    raise UserError(f"{key} is {own}, but it comes from the start, {name}; leave {key} out.")
        return dataclasses.replace(self, model=name, channels=channels)

    def arguments(self, classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, object]:
        """The arguments that make the model, besides its name, if there is no start."""
        model, channels = self.model or "vit-micro", self.channels or 3
        given = {"image": self.image, "patch": self.patch, "depth": self.depth, "pool": self.pool}
        given |= {"registers": self.registers, "drop_path": self.drop_path or None}
        if model.rpartition("/")[0] in ("", "vitscope"):
            rest = {"classes": classes, "channels": channels, "mean": mean, "std": std}
        else:
            if missing := [name for name in ("depth", "pool", "registers") if given.pop(name) is not None]:
                raise UserError(f"{', '.join(missing)} can be set for the project's own ViT, not for {model}.")
            names = {"image": "img_size", "patch": "patch_size", "drop_path": "drop_path_rate"}
            given = {names[name]: value for name, value in given.items()}
            rest = {"num_classes": classes, "in_chans": channels}
        return {name: value for name, value in {**given, **rest}.items() if value is not None}

    def differences(self, before: Mapping[str, object]) -> tuple[str, ...]:
        """Each difference from the fields ``before`` that changes the weights; an absent field has its default."""
        own = {field.name: (field.default, getattr(self, field.name)) for field in dataclasses.fields(self)}
        before = {name: tuple(cast("list[object]", one)) if isinstance(one, list) else one
                  for name, one in before.items()}  # fmt: skip
        strange = tuple(f"{name} {value!r:.40}" for name, value in before.items() if name not in own)
        pairs = {name: (before.get(name, plain), now) for name, (plain, now) in own.items() if name not in FREE}
        return (*strange, *(f"{name} {then!s:.40} -> {now}" for name, (then, now) in pairs.items() if then != now))


def _check(name: str, value: object, holds: bool, asked: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}; it must be {asked}.")


def _check_choice(name: str, annotation: object, value: object) -> None:
    for part in (annotation, *get_args(annotation)):
        if get_origin(part) is Literal and value is not None:
            _check(name, repr(value), value in get_args(part), f"one of {', '.join(map(str, get_args(part)))}")
