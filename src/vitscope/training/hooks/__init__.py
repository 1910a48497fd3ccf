"""The hooks of trainings, one per file."""
