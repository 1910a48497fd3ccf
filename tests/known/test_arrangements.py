"""Patterns of gates and the faces of their cones, against counts that are known and against every pattern tried."""

from itertools import product
from math import comb, e

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from vitscope.convex import blocks
from vitscope.convex.arrangements import (
    arrangements,
    cones,
    distinct,
    lifted_data,
    lifted_entries,
    most_faces,
    most_patterns,
)
from vitscope.convex.block import BLOCKS, Sizes
from vitscope.convex.gates import terms
from vitscope.convex.loss import Squared
from vitscope.convex.problem import Problem
from vitscope.runs.registry import import_all

import_all(blocks.__name__)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def patterns(found: torch.Tensor) -> set[tuple[bool, ...]]:
    return set(map(tuple, found.tolist()))


def every_pattern(rows: torch.Tensor) -> set[tuple[bool, ...]]:
    """By a linear program for each pattern: is there a vector on these sides of all rows?"""
    found: set[tuple[bool, ...]] = set()
    for pattern in product((True, False), repeat=len(rows)):
        walls = np.where(np.array(pattern)[:, None], -rows.numpy(), rows.numpy())
        inside = linprog(np.zeros(rows.shape[1]), A_ub=walls, b_ub=-np.ones(len(rows)), bounds=(None, None))
        if inside.status == 0:
            found.add(pattern)
    return found


@pytest.mark.parametrize(("rows", "rank"), [(6, 2), (6, 3), (5, 4), (4, 4)])
def test_the_patterns_are_all_that_a_linear_program_allows(rows, rank):
    found = arrangements(normal(rows, rank, seed=rows))
    sides = found.vectors @ found.basis.T @ normal(rows, rank, seed=rows).T >= 0
    assert patterns(sides) == every_pattern(normal(rows, rank, seed=rows))


def test_the_patterns_of_an_attention_head_are_all_that_a_linear_program_allows():
    tokens = normal(1, 3, 2, seed=3)
    lifted = torch.kron(tokens[0], tokens[0])
    found = arrangements(lifted)
    sides = found.vectors @ found.basis.T @ lifted.T >= 0
    assert len(found) == len(patterns(sides))
    assert patterns(sides) == every_pattern(lifted)
    assert len(found) < most_patterns(*lifted.shape)  # rows of a Kronecker product are not in general position


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 10), rank=st.integers(1, 4), more=st.integers(0, 3), seed=st.integers(0, 99))
def test_in_general_position_there_are_as_many_as_the_bound(rows, rank, more, seed):
    rank = min(rows, rank)
    found = arrangements(normal(rows, rank, seed=seed) @ normal(rank, rank + more, seed=seed + 1))
    assert found.complete
    assert found.basis.shape == (rank + more, rank)
    assert len(found) == len(patterns(found.positive)) == most_patterns(rows, rank)
    assert len(found) <= 2 * rank * (e * max(rows - 1, 1) / rank) ** rank + 2
    assert sum(map(len, found.faces)) == most_faces(rows, rank)
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(len(found), dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(2, 9), rank=st.integers(2, 4), seed=st.integers(0, 99))
def test_a_face_is_zero_on_its_rows_only_and_all_dimensions_add_up(rows, rank, seed):
    rank = min(rows, rank)
    found = arrangements(normal(rows, rank, seed=seed))
    alternating = 0
    for dim, face in zip(range(rank, 0, -1), found.faces, strict=True):
        alternating += (-1) ** dim * len(face)
        tight = (found.rows @ face.bases).norm(dim=2) < 1e-9
        assert set(tight.sum(1).tolist()) == {rank - dim}
        assert bool((((face.vectors @ found.rows.T).abs() < 1e-9) == tight).all())
        torch.testing.assert_close(
            face.vectors, (face.bases @ face.bases.transpose(1, 2) @ face.vectors[:, :, None])[:, :, 0]
        )
    assert alternating == (-1) ** rank - 1  # Euler: of the sphere that the faces tile, and the origin left out


@settings(max_examples=15, deadline=None)
@given(rank=st.integers(2, 4), images=st.integers(1, 2), seed=st.integers(0, 99))
def test_no_random_vector_has_a_pattern_that_is_not_listed(rank, images, seed):
    tokens = normal(images, 3, 2, seed=seed).round(decimals=1)  # many rows meet where they need not
    lifted = torch.stack([torch.kron(one, one) for one in tokens]).flatten(0, 1)[:, :rank]
    found = arrangements(lifted)
    assert found.complete
    tried = normal(2000, len(found.rows[0]), seed=seed + 1) @ found.rows.T >= 0
    assert patterns(tried) <= patterns(found.positive)
    assert len(patterns(found.positive)) == len(found)


def test_rows_that_are_zero_parallel_or_opposite_count_once():
    rows = np.array([[0.0, 0.0], [1.0, 2.0], [-2.0, -4.0], [3.0, 6.0], [0.0, 1.0]])
    assert distinct(rows) == pytest.approx(np.array([[1, 2], [0, 5**0.5]]) / 5**0.5)
    assert len(arrangements(torch.from_numpy(rows))) == 4
    assert len(arrangements(torch.zeros(3, 2, dtype=torch.float64))) == 1


def test_the_lines_of_a_plane_by_hand():
    found = cones(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert sorted(map(tuple, np.sign(found))) == [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    assert np.abs(found) == pytest.approx(np.full((4, 2), 0.5**0.5))
    assert sorted(cones(np.array([[2.0]])).ravel()) == [-1, 1]


def test_where_there_are_too_many_a_sample_follows_its_seed():
    rows = normal(30, 6)
    sampled = arrangements(rows, limit=1000, samples=40, seed=1)
    assert (sampled.complete, sampled.faces) == (False, ())
    assert len(sampled) == len(patterns(sampled.positive)) <= 40
    assert torch.equal(arrangements(rows, limit=1000, samples=40, seed=1).vectors, sampled.vectors)
    assert not torch.equal(arrangements(rows, limit=1000, samples=40, seed=2).vectors[:9], sampled.vectors[:9])


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("pooled", [True, False])
def test_the_lifted_data_is_what_gates_are_decided_by(name, pooled):
    block, tokens = BLOCKS[name](), normal(2, 3, 4)
    loss = Squared(normal(2, 1 if pooled else 3, 2), torch.ones(2, dtype=torch.float64))
    drawn = terms(block, Sizes(3, 4, 2), 1, torch.Generator().manual_seed(0), torch.float64)
    problem = Problem(tokens, loss, block, drawn, 0.1, pooled, dtype=torch.float64)
    for at, term in enumerate(drawn):
        lifted = lifted_data(problem, at)
        assert lifted.numel() == lifted_entries(problem, at)
        passes = block.passes(tokens[:, :, term.entries], term.vector, pooled)
        assert torch.equal(lifted @ term.vector >= 0, passes.flatten())


def test_cover_s_count_by_hand():
    assert [most_patterns(rows, rank) for rows, rank in [(1, 1), (10, 2), (5, 5), (0, 0)]] == [2, 20, 32, 1]
    assert most_faces(3, 3) == sum(comb(3, k) * 2 ** (3 - k) for k in range(3)) == 26  # of the octants
