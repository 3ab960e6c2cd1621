"""The error of a file that cannot be used."""


class UnusableClipError(Exception):
    """A clip that cannot be stored, with the reason in one line."""
