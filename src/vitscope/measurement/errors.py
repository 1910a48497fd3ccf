"""The one exception meant for the user's eyes."""

from vitscope.measurement.text import printable


class UserError(ValueError):
    """A mistake in the user's input: its text names what was given and what to do.

    Characters that a terminal could not show, or would obey, are escaped. If the mistake is about the split of a data
    set, ``splits`` are those that exist.
    """

    def __init__(self, said: str, splits: tuple[str, ...] | None = None) -> None:
        super().__init__(printable(said))
        self.splits = splits
