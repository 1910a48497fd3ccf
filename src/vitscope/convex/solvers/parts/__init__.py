"""The parts of solvers: each file serves one or several of them, and nothing else."""
