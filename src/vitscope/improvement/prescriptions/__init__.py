"""The prescriptions, one file each."""
