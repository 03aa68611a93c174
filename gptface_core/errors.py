"""Errors that a user can mend."""


class InputError(ValueError):
    """One clear line: the value that does not fit, and the way out."""


class TrainingError(RuntimeError):
    """Training cannot go on: a loss that is no number or far off, or no memory left. Names the rows, or the way out."""

    exit_code = 1


class TrainingInterrupted(TrainingError):  # noqa: N818  asked for from outside, not a fault
    """A signal ended the training after its step was finished and saved; the next start goes on from there."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # as a shell tells of a process that a signal ended
