"""The error of a training whose loss is no longer finite."""

from typing import final

from vitscope.measurement.errors import UserError


@final
class Diverged(UserError):
    """The loss of a training is not finite. The last good state is in its folder."""
