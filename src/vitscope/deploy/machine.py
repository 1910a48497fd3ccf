"""Describe the machine that models are timed on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def describe_machine(device: torch.device, threads: int, *packages: str) -> dict[str, object]:
    """Its processor, usable cores, threads and accelerator, and the versions of PyTorch and these packages."""
    found: dict[str, object] = {
        "processor": processor(),
        "cores": cores(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "idle_threads": os.environ.get("OMP_WAIT_POLICY", "as OpenMP has them"),
    }
    if device.type != "cpu":
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        found["accelerator"] = name
    return found | {name: _version(name) for name in ("torch", *packages)}


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
