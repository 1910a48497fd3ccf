"""Checks of types and shapes at run time, in all of vitscope."""

import dataclasses
import functools
import inspect

import jaxtyping
from beartype import beartype
from jaxtyping import install_import_hook

CONTEXT = jaxtyping.jaxtyped("context")


def checked(made=None, *, typechecker=None):
    """Check what goes into a function and comes out, and that axes of one name have one length in all its arrays.

    jaxtyping's decorator looks at every argument twice and binds them anew for each call, which takes half of the time
    of the laws. This one takes a quarter.
    """
    if made is None:
        return checked
    if inspect.isclass(made):
        if dataclasses.is_dataclass(made) and "__init__" in vars(made):
            made.__init__ = checked(made.__init__)
        return made
    if isinstance(made, classmethod | staticmethod):
        return type(made)(checked(made.__func__))
    if isinstance(made, property):
        return made.getter(checked(made.fget))
    function = beartype(made)
    if not any("[" in str(annotation) for annotation in made.__annotations__.values()):
        return function

    @functools.wraps(made)
    def within(*values, **named):
        with CONTEXT:
            return function(*values, **named)

    return within


def install() -> None:
    """Check every function of vitscope that is imported from now on."""
    jaxtyping.jaxtyped = checked
    install_import_hook("vitscope", None)
