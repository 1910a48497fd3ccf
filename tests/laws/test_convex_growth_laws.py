"""What holds for new heads, whatever the block, the loss and the penalty."""

import numpy as np
import pytest
import torch
from convex_problems import LOSSES, problem

from vitscope.convex.block import BLOCKS
from vitscope.convex.certificate import largest_beta
from vitscope.convex.pulled import largest_pairs, pull_image
from vitscope.convex.solvers.greedy import Greedy
from vitscope.convex.solvers.parts.growth import fresh, grow_heads, scale_heads

every_block = pytest.mark.parametrize("block", list(BLOCKS))
every_loss = pytest.mark.parametrize("loss", LOSSES)
SHARES = (0.9, 0.1, 1e-3, 1e-5)


@pytest.mark.parametrize("share", SHARES)
@every_loss
@every_block
def test_new_heads_have_the_size_that_lowers_the_objective_most(block, loss, share):
    asked = problem(block, 2, loss)
    asked = asked.with_beta(share * largest_beta(asked))
    none = asked.no_heads()
    outputs = asked.outputs(none)
    residual = asked.gradient(outputs)
    tops = largest_pairs([pull_image(asked, residual, term) for term in range(len(asked.terms))], none, 4)
    new = fresh(asked, tops)
    assert new.count > 0
    step, norm = asked.outputs(new), asked.beta * new.half_squares

    def value(scale: float) -> float:
        return asked.data_loss(outputs + scale * step) + scale * norm

    least = min(value(float(scale)) for scale in np.geomspace(1e-7, 1e3, 2000))
    found = scale_heads(asked, new, step, outputs)
    reached = asked.data_loss(asked.outputs(found)) + asked.beta * found.half_squares
    assert reached - least <= 0.01 * (value(0.0) - least)
    torch.testing.assert_close(grow_heads(asked, none, outputs, tops).vector, found.vector)


@pytest.mark.parametrize("solver", [Greedy(), Greedy(whole=0)], ids=["whole", "not whole"])
@every_loss
@every_block
def test_training_goes_on_with_new_heads_from_where_others_are_at_rest(block, loss, solver):
    asked = problem(block, 2, loss)
    found = solver.solve(asked.with_beta(1e-2 * largest_beta(asked)), tol=1e-3, max_passes=1000)
    assert found.stopped == "certified"
