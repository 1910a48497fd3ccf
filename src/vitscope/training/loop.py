"""The training loop, flat over steps: each is a function of the state before it, the seed and its number."""

import copy
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.amended import apply_changes
from vitscope.models.build import build_model, head_names
from vitscope.models.checkpoint import Amendment, Checkpoint, save_checkpoint
from vitscope.models.load import load
from vitscope.models.subject import Subject
from vitscope.training.augmentation import RecipeAugmentation, derived_seed, mix_batch, step_seeded
from vitscope.training.batches import StepPlan, augmented_batches
from vitscope.training.diverged import Diverged
from vitscope.training.evaluation import evaluate
from vitscope.training.hook import Epoch
from vitscope.training.metrics import VALIDATION, metrics, save_metrics
from vitscope.training.objective import TrainingBatch
from vitscope.training.observer import Silent, Step
from vitscope.training.optimizers import make_optimizer, rates
from vitscope.training.parameters import freeze, set_training
from vitscope.training.pixels import Pixels, pixels
from vitscope.training.recipe import Recipe
from vitscope.training.schedule import averaging_decay
from vitscope.training.state import METRICS, WEIGHTS, State, read_state, save_state
from vitscope.training.task import Task

_STEP, _WEIGHTS = 1, 2  # the purpose of a derived seed


def run(fabric: Fabric, task: Task) -> None:
    """Train on this device, from the last saved state, and write weights and metrics to the folder."""
    recipe, cache = task.recipe, task.recipe.cache_gib * 2**30
    shown = pixels(task.images, task.input, cache, task.given)
    validation = None if task.validation is None else pixels(task.validation, task.input, cache)
    plan = _plan(recipe, len(shown), fabric)
    training = _Loop(fabric, task, plan, shown.labelled, validation)
    observer = task.observer if fabric.is_global_zero else Silent()
    batches = augmented_batches(
        shown,
        RecipeAugmentation(recipe, task.crop, task.input),
        plan,
        training.step,
        recipe.workers,
        pin=fabric.device.type == "cuda",
    )
    observer.model(task.model, training.result, task.input, task.classes)
    try:
        observer.begin(plan.steps, training.step)
        for images, labels in batches:
            if training.ended:
                break
            step = training.advance(images, labels)
            if training.step % plan.steps_per_epoch == 0:
                observer.step(step)
                observer.epoch(len(training.history) + 1, training.finish_epoch())
                continue
            if training.step % recipe.save_every == 0:
                training.save()
            observer.step(step)
    finally:
        observer.end()
    training.restore_results()


def _plan(recipe: Recipe, count: int, fabric: Fabric) -> StepPlan:
    share = recipe.devices * (2 if recipe.mixes else 1)
    batch = min(recipe.batch, count - count % share)
    if batch == 0:
        raise UserError(f"{count} images are too few for a batch on {recipe.devices} devices.")
    return StepPlan(recipe.seed, count, batch, recipe.epochs, fabric.global_rank, fabric.world_size)


def _module(task: Task) -> nn.Module:
    """The module that the training begins with."""
    recipe, model = task.recipe, task.model
    with step_seeded(derived_seed(recipe.seed, _WEIGHTS), torch.device("cpu")):
        module = build_model(model, task.arguments, task.classes)
    module = module if task.start is None else task.start.begin(module)
    if recipe.freeze:
        freeze(module, recipe.freeze, head_names(model, task.arguments))
    return module


@dataclass(eq=False)
class _Loop:
    """A training in progress on one device: the only mutable object here."""

    fabric: Fabric
    task: Task
    plan: StepPlan
    labelled: bool
    validation: Pixels | None
    step: int = 0
    losses: list[Tensor] = field(default_factory=list[Tensor])
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    began: float = 0.0
    advanced: bool = False
    rate: float = 0.0
    """Learning rate of the last step, before any layer's scale."""
    best: dict[str, Tensor] | None = None
    """The weights of the best epoch so far, if validation images choose it."""
    ended: bool = False
    """Whether a hook has ended the training."""

    def __post_init__(self) -> None:
        recipe, fabric = self.task.recipe, self.fabric
        self.module = _module(self.task)
        self.optimizer = make_optimizer(recipe, self.module)
        self.rate_of = rates(recipe, self.plan.steps_per_epoch)
        # Fabric returns wrappers, for the forward pass and the step; weights are read from the wrapped objects.
        wrapped: tuple[Any, Any] = fabric.setup(self.module, self.optimizer)
        self.forward, self.stepper = wrapped
        begun = (hook.begin(self.module) for hook in self.task.hooks)
        self.after_step = tuple(done for done in begun if done is not None)
        self.average = copy.deepcopy(self.module).requires_grad_(False) if recipe.ema else None
        set_training(self.module)
        self.began = time.monotonic()
        state = read_state(self.task.folder, fabric.device)
        if state is not None:
            self._restore(state)

    @property
    def result(self) -> nn.Module:
        """The module that is tested and saved: the average of the weights if there is one."""
        return self.module if self.average is None else self.average

    def advance(self, images: Tensor, labels: Tensor) -> Step:
        """Make one step with these bytes and labels."""
        recipe, plan, device = self.task.recipe, self.plan, self.fabric.device
        self.rate = self.rate_of(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group.get("scale", 1.0)  # states of older versions have none
        with step_seeded(derived_seed(recipe.seed, _STEP, self.step, plan.rank), device):
            loss = self.task.objective.loss(self.forward, self._batch(images, labels))
            self.fabric.backward(loss)
        if recipe.clip:
            # The loss scaler skips a gradient that is not finite; without a scaler it shows in the loss.
            self.fabric.clip_gradients(self.forward, self.stepper, max_norm=recipe.clip, error_if_nonfinite=False)
        self.stepper.step()
        self.stepper.zero_grad()
        for done in self.after_step:
            done()
        self._update_average()
        self.losses.append(loss.detach())
        self.step += 1
        self.advanced = True
        epoch = (self.step - 1) // plan.steps_per_epoch
        return Step(self.step, plan.steps, epoch, plan.epochs, self.losses[-1], self.rate)

    def _batch(self, images: Tensor, labels: Tensor) -> TrainingBatch:
        """The batch that the objective gets for these bytes and labels."""
        task, device = self.task, self.fabric.device
        inputs = task.input.normalise(images.to(device, non_blocking=True))
        known = labels.to(device, non_blocking=True)
        inputs, targets = mix_batch(task.recipe, inputs, known, len(task.classes))
        own, shares = (known, targets) if self.labelled else (None, None)
        return TrainingBatch(inputs, own, shares, task.input, task.classes)

    def finish_epoch(self) -> dict[str, float]:
        """Evaluate, write weights and metrics, and save the state; return the epoch's row of the metrics."""
        losses = self._gather_losses()
        self._synchronise_buffers()
        row = {
            "train_loss": float(losses.mean()),
            "train_loss_error": float(losses.std() / len(losses) ** 0.5) if len(losses) > 1 else 0.0,
            "train_loss_count": float(len(losses)),
        }
        if self.validation is not None:
            row |= self._judge(self.validation)
        row |= {"learning_rate": self.rate, "seconds": time.monotonic() - self.began}
        self.history.append(row)
        self.losses, self.began = [], time.monotonic()
        if self.validation is not None and best_epoch(self.history, self.task) == len(self.history):
            self.best = {name: one.detach().cpu().clone() for name, one in self.result.state_dict().items()}
        self._publish()
        self._finish_hooks()
        self.save()  # last: a state means that everything before it is written
        return row

    def _judge(self, validation: Pixels) -> dict[str, float]:
        task = self.task
        found = evaluate(self.result, validation, task.classes, task.objective, task.recipe.batch, self.fabric)
        return {f"{VALIDATION}_{name}": value for name, value in found.items()}

    def _finish_hooks(self) -> None:
        """Call the hooks after an epoch, and end the training if one of them says so."""
        task = self.task
        if self.fabric.is_global_zero:
            epoch = Epoch(len(self.history), tuple(self.history), self._subject, task.folder)
            for hook in task.hooks:
                hook.finish_epoch(epoch)
        self.ended = self._ends()

    def _ends(self) -> bool:
        objective = self.task.objective
        figure = f"{VALIDATION}_{objective.figures[0].name}"
        return bool(self.history) and any(hook.ends(self.history, figure, objective.larger) for hook in self.task.hooks)

    def _subject(self) -> Subject:
        """A copy of what is saved, as a subject."""
        task = self.task
        with torch.random.fork_rng(devices=[]):
            module = build_model(task.model, task.arguments, task.classes)
        module = module if task.start is None else apply_changes(module, task.start.changes)
        module.load_state_dict(self.result.state_dict())
        return load(module, input=task.input, classes=task.classes, name=task.model)

    def restore_results(self) -> None:
        """Write weights and metrics again if a resumed training made no step: the files may be damaged."""
        if not self.advanced:
            self._publish()

    def save(self) -> None:
        """Save the state. A training that has diverged ends here and leaves the last good state."""
        losses = self._gather_losses()
        if not self.fabric.is_global_zero:
            return
        state = State(
            step=self.step,
            model=self.module.state_dict(),
            average=None if self.average is None else self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.fabric.strategy.precision.state_dict(),
            losses=losses,
            seconds=time.monotonic() - self.began,
            history=self.history,
            best=self.best,
        )
        save_state(state, self.task.folder)

    def _restore(self, state: State) -> None:
        try:
            self.module.load_state_dict(state.model)
            if self.average is not None and state.average is not None:
                self.average.load_state_dict(state.average)
            self.optimizer.load_state_dict(dict(state.optimizer))
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(
                f"The state in {self.task.folder} belongs to another {self.task.model}; begin anew in another folder."
            ) from error
        if state.scaler:
            self.fabric.strategy.precision.load_state_dict(dict(state.scaler))
        self.step, self.history = state.step, state.history
        self.best = None if state.best is None else dict(state.best)
        self.ended = self._ends()
        self.losses = list(state.losses.unbind())
        self.began = time.monotonic() - state.seconds

    def _gather_losses(self) -> Tensor:
        """The epoch's losses so far, averaged over devices; each device keeps the averages."""
        losses = torch.stack(self.losses) if self.losses else torch.zeros(0, device=self.fabric.device)
        reduced = self.fabric.all_reduce(losses, reduce_op="mean")
        assert isinstance(reduced, Tensor)
        self.losses = list(reduced.unbind())
        if not bool(reduced.isfinite().all()):
            raise Diverged(
                f"The training diverged before step {self.step} (the loss is not finite); "
                f"lower learning_rate ({self.task.recipe.learning_rate:g}), or the gradient's largest norm with clip "
                f"({self.task.recipe.clip:g}; 0 is no limit)."
            )
        return reduced

    def _update_average(self) -> None:
        if self.average is None:
            return
        weight = 1 - averaging_decay(self.step, self.task.recipe.ema)
        for mean, value in zip(
            self.average.state_dict().values(), self.module.state_dict().values(), strict=True
        ):  # batch statistics are averaged with the weights; counters are copied
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)

    def _synchronise_buffers(self) -> None:
        """Copy the batch statistics of the first device, which saves the weights, to all others."""
        if self.fabric.world_size > 1:
            for module in (self.module, self.result):
                for buffer in module.buffers():
                    torch.distributed.broadcast(buffer, 0)

    def _publish(self) -> None:
        if not self.fabric.is_global_zero:
            return
        task = self.task
        save_metrics(metrics(self.history, task.objective.figures), task.folder / METRICS)
        training = {"recipe": dataclasses.asdict(task.recipe), "images": task.images.name}
        if task.start is not None:
            training |= {"start": {"fingerprint": task.start.fingerprint, "notes": task.start.notes}}
        training |= {"epochs": len(self.history), "last_epoch": self.history[-1]}
        training |= {"best_epoch": best_epoch(self.history, task)} if self.best is not None else {}
        weights = self.result.state_dict() if self.best is None else self.best
        changes = {} if task.start is None else task.start.changes
        amendment = Amendment(changes=changes) if changes else None
        checkpoint = Checkpoint(weights, task.model, task.arguments, task.classes, task.input, training, amendment)
        save_checkpoint(checkpoint, task.folder / WEIGHTS)


def best_epoch(history: Sequence[Mapping[str, float]], task: Task) -> int:
    """The epoch (from 1) whose weights are saved: the first with the best validation figure, or the last without one.

    NaN counts as the worst figure.
    """
    figure = f"{VALIDATION}_{task.objective.figures[0].name}"
    if figure not in history[0]:
        return len(history)
    values = [row[figure] if task.objective.larger else -row[figure] for row in history]
    return 1 + max(range(len(values)), key=lambda place: -math.inf if math.isnan(values[place]) else values[place])
