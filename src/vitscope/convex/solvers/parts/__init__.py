"""What solvers are made of: each file serves one or several of them, and nothing else."""
