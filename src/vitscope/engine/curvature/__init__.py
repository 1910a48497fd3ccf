"""The loss as a function of the weights: its Hessian, the parts it is taken by, and diagnostics of it."""
