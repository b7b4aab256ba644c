"""Readers of the field's own preference files, each to the same arrays, with a report of what was left out."""

from persona.data.readers.answers import Answers, read_answers
from persona.data.readers.detect import LAYOUTS, Layout, preferences_from_frame, read_preferences
from persona.data.readers.options import ReadOptions

__all__ = [
    "LAYOUTS",
    "Answers",
    "Layout",
    "ReadOptions",
    "preferences_from_frame",
    "read_answers",
    "read_preferences",
]
