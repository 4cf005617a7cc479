"""The one exception that people see as a sentence instead of a traceback."""


class CallhouseError(Exception):
    """A problem a person can act on: the message says what is wrong, where, and what to do."""
