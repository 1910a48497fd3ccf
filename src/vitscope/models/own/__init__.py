"""The project's own vision transformer: the model, how it is read, and the sizes it comes in."""
