"""Multiply-adds, operators, bytes and memory of modules whose costs are known by pencil and paper."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import vitscope
from vitscope.deploy.backend import AbstractBackend, torch_runner
from vitscope.deploy.contestant import SubjectContestant, contestants_of
from vitscope.deploy.memory import Apart, MemoryWork, why_unmeasured
from vitscope.deploy.tally import Gauges, count_multiply_adds, tally
from vitscope.interventions.lesion import Lesion
from vitscope.models.own.vit import Vit, VitConfig

MEGA = 2**20


def test_a_vit_multiplies_as_often_as_its_formula_says():
    r"""``12 n d² + 2 n² d`` a block (qkv 3, projection 1, MLP 8), patches and classifier besides."""
    tokens, dim, depth = 17, 32, 3
    module = Vit(VitConfig(image=16, channels=3, patch=4, classes=10, dim=dim, depth=depth, heads=4)).eval()
    blocks = depth * (12 * tokens * dim**2 + 2 * tokens**2 * dim)
    wanted = 16 * (3 * 4 * 4) * dim + blocks + dim * 10
    assert count_multiply_adds(module, torch.zeros(1, 3, 16, 16)) == wanted
    assert count_multiply_adds(module, torch.zeros(5, 3, 16, 16)) == 5 * wanted


def test_fused_attention_and_convolutions_are_counted():
    queries = torch.zeros(2, 4, 9, 8)  # 2 images, 4 heads, 9 tokens of 8
    fused = count_multiply_adds(lambda x: functional.scaled_dot_product_attention(x, x, x), queries)
    assert fused == 2 * 4 * 2 * 9 * 9 * 8
    convolution = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    assert count_multiply_adds(convolution, torch.zeros(1, 3, 7, 7)) == 7 * 7 * 3 * 3 * 3 * 5


def test_a_tally_sees_operators_and_their_bytes_and_no_views():
    weight = torch.ones(64, 32)
    found = tally(lambda x: torch.relu((x @ weight).reshape(8, 2, 16).flatten(1)), torch.ones(8, 64))
    assert found.operators == 2
    product, rectified = 4 * (8 * 64 + 64 * 32 + 8 * 32), 4 * 2 * 8 * 32
    assert found.traffic == product + rectified
    assert 0 < found.products < 1


def test_where_the_time_goes_is_seen():
    images = torch.ones(4, 400, 400)
    assert tally(lambda x: x @ x @ x @ x, images).products == 1
    assert tally(lambda x: x.sin().cos().exp(), images).products == 0


def test_gauges_do_what_they_say():
    gauges = Gauges(torch.empty(0))
    product, copied, _ = (work() for work in gauges.works)
    assert product.shape[0] ** 3 == gauges.amounts[0]
    assert 2 * copied.nbytes == gauges.amounts[1]
    assert len(gauges.works[2]()) == gauges.amounts[2]


class Taking(nn.Module):
    """Holds some mega of bytes while it runs, for each image."""

    def __init__(self, mega: int) -> None:
        super().__init__()
        self.mega = mega
        self.weight = nn.Parameter(torch.ones(3, 2))

    def forward(self, images):
        taken = torch.ones(len(images), max(self.mega * MEGA // 4, 1))
        return images.mean((2, 3)) @ self.weight + taken[:, :1]


@dataclass(frozen=True)
class OnItself(AbstractBackend):
    """A backend that runs the module as it is; it fails if it is told to."""

    fails: bool = False
    name, eager = "eager", True

    def check(self, device):
        pass

    def prepare(self, module, shape, batches, threads):
        if self.fails:
            raise RuntimeError("no kernel for it")
        return torch_runner(module, module)


@pytest.mark.skipif(bool(why_unmeasured(torch.device("cpu"))), reason="the peak cannot be read here")
def test_the_peak_is_what_a_pass_takes_in_a_process_of_its_own():
    contestants = {
        0: SubjectContestant("none", None, Taking(0), (3, 8, 8), OnItself()),
        1: SubjectContestant("some", None, Taking(24), (3, 8, 8), OnItself()),
        2: SubjectContestant("fails", None, Taking(24), (3, 8, 8), OnItself(fails=True)),
    }
    work = MemoryWork(contestants, (1, 4), threads=1)
    found = {shard.start: result for shard, result in Apart().fold(work, work.shards(), lambda _: None)}
    assert found[0].why == ""
    assert max(found[0].peaks) < 4 * MEGA
    assert np.allclose(found[1].peaks, (24 * MEGA, 96 * MEGA), atol=4 * MEGA)
    assert found[2].peaks == (None, None)
    assert found[2].why == "no kernel for it"
    assert work.read(found[1].to_bytes()) == found[1] or work.read(found[1].to_bytes()).peaks == found[1].peaks
    assert not work.fits(work.shards()[2], found[2])


def test_weights_that_an_edited_subject_does_not_use_are_not_counted():
    subject = vitscope.load("digits")
    edited = vitscope.load("digits")
    whole, less = contestants_of([subject, Lesion((2,))(edited)], "eager", None)
    assert whole.parameters == subject.parameter_count
    assert less.parameters < whole.parameters
