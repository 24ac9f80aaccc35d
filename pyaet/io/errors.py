"""The two faults a user is told about in a sentence: something given is unusable, or a run could not go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """A file, a number or a plan given by the user is unusable; the message is one sentence that says what to do."""


class RunError(RuntimeError):
    """A run could not go on for a named reason that is not the user's input; what was finished stays valid."""


@contextmanager
def told_of(subject: object) -> Iterator[None]:
    """Turn what a library says of its arguments (`ValueError`, a missing extra) into an `InputError` about `subject`."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, ImportError) as error:
        raise InputError(f"{subject}: {error}") from error
