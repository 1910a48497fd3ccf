"""Models as they run elsewhere: exported, compiled, timed."""
