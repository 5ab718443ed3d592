"""A console on which the words of others are seen and cannot act."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from neo_async.text import shown


class ShownConsole(Console):
    """Writes out control characters of whatever is printed; rich takes out only five of them.

    A table should escape its cells earlier, so that its columns are as wide as what is seen.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            if control is None and not text.isprintable():
                # Rich itself ends lines within a segment.
                yield Segment("\n".join(map(shown, text.split("\n"))), style)
            else:
                yield segment
