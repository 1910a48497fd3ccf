"""The one exception that is meant for the user's eyes."""

from vitscope.measurement.text import printable


class UserError(ValueError):
    """A mistake in what the user gave: its text names what was given and what to do, in one sentence.

    What a terminal could not show, or would obey, stands in it as escapes. Where it is about which split of a data set
    is meant, ``splits`` are those that there are.
    """

    def __init__(self, said: str, splits: tuple[str, ...] | None = None) -> None:
        super().__init__(printable(said))
        self.splits = splits
