"""Theory labs: the settings in which papers prove how attention learns, trained by the thousand and put to the test."""
