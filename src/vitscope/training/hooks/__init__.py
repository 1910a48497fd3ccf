"""The hooks of trainings, one in a file."""
