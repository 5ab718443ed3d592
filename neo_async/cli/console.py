"""A rich console that is safe for untrusted text."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from neo_async.base.text import shown


class ShownConsole(Console):
    """Escapes control characters in everything printed; rich itself removes only five of them.

    A table should escape its cells earlier, so that its columns fit the escaped text.
    """

    def on_broken_pipe(self) -> None:
        """Leave it to the command, as with everything else that is printed."""
        raise BrokenPipeError

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
