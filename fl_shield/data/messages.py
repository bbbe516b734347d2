"""Quoting the errors of other libraries in ours."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's innermost cause, or its type when it says nothing.

    >>> first_line(OSError("no such host\nRetry later."))
    'no such host'
    >>> first_line(KeyError())
    'KeyError'
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
