"""Keeps libraries from writing over our own progress bars and summaries."""

import warnings

from transformers.utils import logging


def quiet_libraries() -> None:
    """Silence the loading bars of transformers and a warning between two of its sister packages."""
    logging.disable_progress_bar()
    # peft 0.21 asks transformers 5.23 for a renamed property; nothing that a user could do about it.
    warnings.filterwarnings(
        "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
    )
