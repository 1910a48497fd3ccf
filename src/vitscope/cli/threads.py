"""How idle threads wait, which has to be decided before torch is imported."""

import os

POLICY = "OMP_WAIT_POLICY"


def wait_passively() -> None:
    """Let OpenMP's idle threads sleep rather than spin, unless the user has chosen; workers inherit it.

    Spinning threads take cores from other processes and from each other: next to one busy process a checkup then takes
    two to ten times as long. On a quiet machine sleeping costs next to nothing (``benchmarks/``). GNU's and LLVM's
    OpenMP read the variable when they are loaded, so it has no effect once torch is imported.
    """
    os.environ.setdefault(POLICY, "passive")
