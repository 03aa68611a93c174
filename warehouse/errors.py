"""Errors that a user can mend."""


class InputError(ValueError):
    """One clear line: the value that does not fit, and the way out."""
