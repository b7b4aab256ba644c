"""What reaches the terminal: words alone, whatever the data, a model or a file name would have it do.

Titles, ids and replies come from others. An escape sequence among them could clear the screen, rename the window or
write what the program never said.
"""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# All control characters of ASCII and Latin-1 but line feed and tab, which only part words.
_CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})


def plain(text: str) -> str:
    r"""A text without the characters that control a terminal; what followed them stays, as harmless letters.

    Args:
        text: Of any source.

    Example:
        >>> plain("Alien\x1b[2J (1979)")
        'Alien[2J (1979)'
    """
    return text.translate(_CONTROLS)


class PlainConsole(Console):
    """A console that styles what it is told to, and passes on no control character of a text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments with plain texts; the console's own controls, such as moving the cursor, are kept.

        Args:
            renderable: What is printed.
            options: How; the console's own if not given.
        """
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)
