"""Where a run comes from: versions, machine, time."""

import importlib.metadata
import json
import platform
from datetime import UTC, datetime

import torch

_PACKAGES = ("vitscope", "torch", "timm", "torchvision", "transformers", "numpy", "xarray")


def provenance(seconds: float, command: str) -> str:
    """JSON with the package versions, the machine, the end time in UTC, the seconds taken and the command."""
    versions = {name: _version(name) for name in _PACKAGES}
    return json.dumps(
        {
            "command": command,
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
            "python": platform.python_version(),
            "packages": {name: version for name, version in versions.items() if version},
            "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        }
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
