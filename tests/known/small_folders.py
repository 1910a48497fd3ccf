"""Small folders of timm and transformers, as their libraries write them."""

import json
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

NAMES = ["zebra", "ant", "mole"]
BODY = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "patch_size": 8,
    "image_size": 32,
}
SIZE = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 3}


def timm_folder(path: Path, **more) -> nn.Module:
    """A ViT of three named classes; ``more`` stands in its configuration."""
    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", **SIZE).eval()
    save_for_hf(module, path, model_config={"label_names": NAMES}, safe_serialization=True)
    return changed(path, **more) or module


def transformers_folder(path: Path, **more) -> nn.Module:
    """The same of transformers."""
    torch.manual_seed(0)
    module = ViTForImageClassification(ViTConfig(**BODY, id2label=dict(enumerate(NAMES)))).eval()
    module.save_pretrained(path)
    return changed(path, **more) or module


def changed(path: Path, **more) -> None:
    """Other values in the configuration; those of a table are put into the one that is there."""
    file = path / "config.json"
    facts = json.loads(file.read_text())
    for key, value in more.items():
        facts[key] = {**facts[key], **value} if isinstance(value, dict) and isinstance(facts.get(key), dict) else value
    file.write_text(json.dumps(facts))


def pictures() -> torch.Tensor:
    """Two pictures of noise."""
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def logits(module: nn.Module) -> torch.Tensor:
    """What a module makes of them."""
    with torch.inference_mode():
        found = module(pictures())
    return found if isinstance(found, torch.Tensor) else found.logits
