"""Diagnostics taken during a training, every so many steps, in any framework's loop."""

from vitscope.training.watch.mlflow import MLflow
from vitscope.training.watch.monitor import Monitor
from vitscope.training.watch.snapshot import AsSubject
from vitscope.training.watch.tensorboard import TensorBoard
from vitscope.training.watch.wandb import WeightsAndBiases

__all__ = ["AsSubject", "MLflow", "Monitor", "TensorBoard", "WeightsAndBiases"]
