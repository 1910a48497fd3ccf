"""The project's own vision transformer: the model, its adapter, and its sizes."""
