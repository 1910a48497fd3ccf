"""The change across a unit and its error are those of the images' own differences."""

import numpy as np
import pytest
import scipy.stats
import torch

from vitscope.diagnostics.feature_variance import FeatureVariance
from vitscope.diagnostics.fourier_spectrum import FourierSpectrum
from vitscope.engine.reading.activation import FeatureMap
from vitscope.engine.reading.diagnostic import Scene
from vitscope.models.unit import Place, UnitKind


@pytest.mark.parametrize(
    ("diagnostic", "quantity", "change"),
    [(FourierSpectrum(), "at_highest_frequency", "sharpening"), (FeatureVariance(), "log_variance", "log_change")],
)
def test_changes_are_paired(diagnostic, quantity, change):
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(12, 16, 3, generator=generator) * torch.arange(1, 13)[:, None, None]
    after = before + 0.1 * torch.randn(12, 16, 3, generator=generator)
    state, values = diagnostic.init(), []
    for rows in (slice(0, 5), slice(5, 12)):
        seen = [diagnostic.observe(FeatureMap(cells[rows], (4, 4))) for cells in (before, after)]
        values.append((seen[1][quantity] - seen[0][quantity]).double())
        batch = {(layer, name): value for layer, found in enumerate(seen) for name, value in found.items()}
        state = diagnostic.update(state, batch)
    expected = torch.cat(values).numpy()
    result = diagnostic.finish(state, Scene((Place(UnitKind.MLP, "unit", 0, 0),)))
    assert np.isnan(result[change].sel(layer=0))
    np.testing.assert_allclose(result[change].sel(layer=1), expected.mean())
    np.testing.assert_allclose(result[f"{change}_error"].sel(layer=1), scipy.stats.sem(expected))
