"""The objectives of trainings, one in a file."""
