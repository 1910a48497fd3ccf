"""The largest length in cones, by pencil and paper, against a fine search, and against linear maps that are known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.convex.arrangements import Arrangements, arrangements
from vitscope.convex.cone import largest_projection, peaks, projection, spectral_bound


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Net:
    """``relu(data u)^T weights``: linear on each cone."""

    found: Arrangements
    data: torch.Tensor
    weights: torch.Tensor

    def maps(self, vectors):
        passes = (vectors @ self.data.T >= 0).double()
        return torch.einsum("vn,no,nd->vod", passes, self.weights, self.data)

    def length(self, vectors):
        return ((vectors @ self.data.T).relu() @ self.weights).norm(dim=1)

    def peaks(self):
        return peaks(self.found.faces, self.found.rows, self.maps)

    def bound(self):
        return spectral_bound(self.maps(self.found.vectors))

    def projected(self):
        return largest_projection(self.maps(self.found.vectors), self.found.rows, self.found.positive)


def net(rows: torch.Tensor, weights: torch.Tensor) -> Net:
    found = arrangements(rows)
    return Net(found, rows @ found.basis, weights)


@pytest.mark.parametrize(
    ("weights", "value", "vector"),
    [
        ([[3, 0], [0, 4]], 4, [0, 1]),  # the length of (3 relu(u1), 4 relu(u2)): all on the second axis
        ([[3], [4]], 5, [0.6, 0.8]),  # 3 relu(u1) + 4 relu(u2): inside the first quadrant
        ([[3], [-4]], 4, [0, 1]),  # in no quadrant do both help
    ],
)
def test_by_hand_in_a_plane(weights, value, vector):
    head = net(torch.eye(2, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64))
    top = head.peaks()
    assert float(top.values[0]) == pytest.approx(value)
    assert (head.found.basis @ top.vectors[0]).clamp(min=0).tolist() == pytest.approx(vector, abs=1e-9)


sizes = {"rows": st.integers(1, 7), "rank": st.integers(1, 4), "out": st.integers(1, 3), "seed": st.integers(0, 999)}


@settings(max_examples=25, deadline=None)
@given(**sizes)
def test_no_vector_is_longer_and_every_peak_is_as_long_as_it_says(rows, rank, out, seed):
    head = net(normal(rows, min(rank, rows), seed=seed), normal(rows, out, seed=seed + 1))
    top = head.peaks()
    torch.testing.assert_close(head.length(top.vectors), top.values, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(top.vectors.norm(dim=1), torch.ones(len(top.values), dtype=torch.float64))
    tried = torch.nn.functional.normalize(normal(4000, min(rank, rows), seed=seed + 2), dim=1)
    lengths = head.length(tried)
    assert float(lengths.max()) <= float(top.values[0]) * (1 + 1e-12)
    assert float(lengths.max()) >= float(top.values[0]) * 0.7  # and it is not far above what a search finds


@settings(max_examples=25, deadline=None)
@given(**sizes)
def test_the_bound_is_above_the_exact_answer_and_projection_gives_it_for_one_row(rows, rank, out, seed):
    head = net(normal(rows, min(rank, rows), seed=seed), normal(rows, out, seed=seed + 1))
    assert head.bound() >= float(head.peaks().values[0]) * (1 - 1e-12)
    single = net(normal(rows, min(rank, rows), seed=seed), normal(rows, 1, seed=seed + 1))
    exact, found = single.peaks(), single.projected()
    assert float(found.values[0]) == pytest.approx(float(exact.values[0]), rel=1e-9)
    torch.testing.assert_close(single.length(found.vectors), found.values, rtol=1e-9, atol=1e-9)


def test_the_same_map_on_every_cone_has_its_spectral_norm():
    found, linear = arrangements(normal(6, 3)), normal(2, 3, seed=4)
    top = peaks(found.faces, found.rows, lambda vectors: linear.expand(len(vectors), -1, -1))
    assert float(top.values[0]) == pytest.approx(float(torch.linalg.matrix_norm(linear, 2)))


@pytest.mark.parametrize(
    ("point", "nearest"), [([1, 2], [1, 2]), ([1, -2], [1, 0]), ([-1, -2], [0, 0]), ([-3, 1], [0, 1])]
)
def test_projection_on_a_quadrant(point, nearest):
    assert projection(np.array(point, dtype=float), np.eye(2)) == pytest.approx(np.array(nearest))
    assert projection(np.array(point, dtype=float), np.zeros((0, 2))) == pytest.approx(np.array(point))


@settings(max_examples=40, deadline=None)
@given(walls=st.integers(1, 6), dim=st.integers(1, 4), seed=st.integers(0, 999))
def test_a_projection_is_in_the_cone_and_what_is_left_is_in_its_polar(walls, dim, seed):
    normals, point = normal(walls, dim, seed=seed).numpy(), normal(dim, seed=seed + 1).numpy()
    nearest = projection(point, normals)
    assert (normals @ nearest).min() >= -1e-9
    assert nearest @ (point - nearest) == pytest.approx(0, abs=1e-9)
    inside = [vector for vector in normal(200, dim, seed=seed + 2).numpy() if (normals @ vector).min() >= 0]
    assert all(vector @ (point - nearest) <= 1e-9 for vector in inside)
