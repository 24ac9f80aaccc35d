"""The two faults a user is told about in a sentence: something given is unusable, or a run could not go on."""


class InputError(ValueError):
    """A file, a number or a plan given by the user is unusable; the message is one sentence that says what to do."""


class RunError(RuntimeError):
    """A run could not go on for a named reason that is not the user's input; what was finished stays valid."""
