"""Every registered diagnostic on the activations whose answers it states itself."""

import pytest
import torch

from vitscope.diagnostics import default_diagnostics

CASES = [(diagnostic, known) for diagnostic in default_diagnostics() for known in diagnostic.known_answers()]


@pytest.mark.parametrize("diagnostic", default_diagnostics(), ids=lambda d: d.name)
def test_has_a_known_answer(diagnostic):
    assert diagnostic.known_answers()


@pytest.mark.parametrize(("diagnostic", "known"), CASES, ids=[f"{d.name}: {k.why}" for d, k in CASES])
def test_known_answer(diagnostic, known):
    observed = diagnostic.observe(known.activation)
    for quantity, answer in known.answer.items():
        torch.testing.assert_close(
            observed[quantity].double(), answer.double(), rtol=known.tolerance, atol=known.tolerance, equal_nan=True
        )
