"""Errors that a request can meet."""

from __future__ import annotations

from typing import ClassVar


class RequestError(Exception):
    """What a request is answered with, as JSON: the message, meant for who asked, and a status.

    A class derived from it says which; its message says what was found, expected, and what to do.
    """

    status: ClassVar[int] = 500
    """The HTTP status of the answer; 499, nginx's: the client is gone, nobody reads it."""
