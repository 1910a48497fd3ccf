"""How idle threads wait, which has to be decided before torch is imported."""

import os

POLICY = "OMP_WAIT_POLICY"


def wait_passively() -> None:
    """Let OpenMP's idle threads sleep rather than spin, unless the user has chosen; workers inherit it.

    Threads that spin take the cores from whatever else runs, and from each other's turn: beside one busy process a
    checkup then takes two to ten times as long. On a quiet machine sleeping costs next to nothing (``benchmarks/``).
    GNU's and LLVM's OpenMP read the variable as they are loaded, so nothing can be changed once torch is there.
    """
    os.environ.setdefault(POLICY, "passive")
