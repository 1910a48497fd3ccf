"""A checkup of your own model: the CIFAR ResNet-56 of He et al., given as a plain ``torch.nn.Module``.

    VITSCOPE_DATA=... python examples/resnet56_plain_module.py [--limit 10000] [--out checkups/resnet56]

vitscope has no adapter for this class and reads it at its 27 residual blocks. On the whole CIFAR-10 test set its top-1
accuracy is 93.39 %, as published with the weights.
"""

import argparse
import os
import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import vitscope
from vitscope.runs.store import RunFolder


class Block(nn.Module):
    """Two 3 x 3 convolutions and an identity shortcut, padded with zeros if the channels double."""

    def __init__(self, entering: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(entering, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.added, self.stride = channels - entering, stride

    def forward(self, x):
        branch = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return functional.relu(branch + shortcut)


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels, nine blocks each."""

    def __init__(self, blocks: int = 9):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, channels in enumerate((16, 32, 64), start=1):
            entering = channels if stage == 1 else channels // 2
            first = Block(entering, channels, 1 if stage == 1 else 2)
            self.add_module(
                f"layer{stage}", nn.Sequential(first, *(Block(channels, channels, 1) for _ in range(blocks - 1)))
            )
        self.linear = nn.Linear(64, 10)

    def forward(self, images):
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", default="checkups/resnet56")
    arguments = parser.parse_args()
    if "VITSCOPE_DATA" not in os.environ:
        sys.exit("VITSCOPE_DATA is not set: there are no weights and no CIFAR-10 to examine.")
    data = Path(os.environ["VITSCOPE_DATA"])

    model = CifarResNet()
    model.load_state_dict(load_file(data / "weights" / "cifar10_resnet56_akamaster_fp32.safetensors"))
    pixels = vitscope.PixelInput(image=32, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    subject = vitscope.load(model, input=pixels, name="ResNet-56")
    images = vitscope.images(data / "cifar10", split="test", limit=arguments.limit)
    run = vitscope.checkup(subject, images, plan=vitscope.Plan(batch_size=128, folder=RunFolder(arguments.out)))
    page = vitscope.report(run, Path(arguments.out) / "page.html")

    print(f"top-1 {run['accuracy'].item():.4f} on {len(images)} images; {len(run.anatomy)} blocks; page at {page}")
    print(run["feature-variance"].to_series().round(3).to_string())


if __name__ == "__main__":
    main()
