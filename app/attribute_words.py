"""Named attributes of a reply in words: what more, and less, of each means to a person."""

from collections.abc import Mapping

MORE_AND_LESS: Mapping[str, tuple[str, str]] = {
    "brevity": ("shorter replies", "longer replies"),
    "warmth": ("warmer words", "cooler words"),
    "plainness": ("plainer words", "richer words"),
    "reasons": ("more reasons", "fewer reasons"),
    "curiosity": ("more questions", "fewer questions"),
    "enthusiasm": ("more excitement", "a calmer tone"),
    "lists": ("more lists", "fewer lists"),
    "hedging": ("more hedging", "firmer statements"),
    "formality": ("a more formal tone", "a more casual tone"),
}
"""What more, and less, of each attribute means in words."""


def more_or_less(name: str, *, is_more: bool) -> str:
    """What a wish for more, or less, of an attribute is called.

    Example:
        >>> more_or_less("brevity", is_more=False)
        'longer replies'
    """
    more, less = MORE_AND_LESS.get(name, (f"more {name}", f"less {name}"))
    return more if is_more else less
