"""Batches that a GPU can take: images of one shape, and no more than fit into its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ls_yolo.engines.letterbox import Letterboxed

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def by_shape(prepared: Sequence[Letterboxed]) -> list[list[int]]:
    """The indices of images whose inputs have the same shape, together; each index once."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, item in enumerate(prepared):
        groups.setdefault(item.geometry.shape, []).append(index)
    return list(groups.values())


class Halving:
    """Runs batches of any size in parts that fit, and remembers how large a part fits.

    ``limit`` is the largest part. ``full`` is the exception that says that a part did not fit;
    ``smaller(limit)`` is called each time the limit was halved, before the part is tried again.
    """

    def __init__(self, limit: int, full: type[Exception], smaller: Callable[[int], None]) -> None:
        self.limit = limit
        self._full = full
        self._smaller = smaller

    def run(
        self, items: Sequence[Item], forward: Callable[[Sequence[Item]], Sequence[Answer]]
    ) -> list[Answer]:
        """The answers of ``forward``, in order.

        Raises:
            the exception ``full``: even one does not fit.
        """
        answers: list[Answer] = []
        while len(answers) < len(items):
            part = items[len(answers) : len(answers) + self.limit]
            try:
                answers += forward(part)
                continue
            except self._full:
                if len(part) == 1:
                    raise
            # Outside of the handler: what the exception refers to is memory too.
            self.limit = len(part) // 2
            self._smaller(self.limit)
        return answers
