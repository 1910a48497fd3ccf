"""Pure functions of tensors; nothing here knows a model, a file or another layer."""
