"""The one exception that is meant for the user's eyes."""


class UserError(ValueError):
    """A mistake in what the user gave: its text names what was given and what to do, in one sentence."""
