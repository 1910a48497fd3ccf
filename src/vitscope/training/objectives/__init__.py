"""The objectives of trainings, one per file."""
