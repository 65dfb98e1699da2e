"""The errors that a user can cause; each is one sentence: who, what was wanted, what came, what to do."""


class FovealError(Exception):
    """What every error of this library is; commands print it as one line and exit with status 2."""


class ShapeError(FovealError, ValueError):
    """A tensor's shape or a size does not fit."""


class OptionError(FovealError, ValueError):
    """An option has a value that does not exist or contradicts another."""


class BackendError(FovealError, RuntimeError):
    """The named backend does not exist or cannot run this call."""


class NoMatchError(FovealError, LookupError):
    """A pattern or name matches nothing."""


class DataError(FovealError, ValueError):
    """Files or folders are missing, unreadable, or not what they should be."""


class ElsewhereError(FovealError, RuntimeError):
    """Another process of the same run failed, and says why; this one has nothing to add."""


class DivergedError(FovealError, ArithmeticError):
    """A loss is no longer a number."""
