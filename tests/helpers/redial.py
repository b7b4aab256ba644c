"""Human dialogues of ReDial (Li et al. 2018, CC BY 4.0) in the form of chats that an audit reads."""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_MENTION = re.compile(r"@(\d+)")
_SPACES = re.compile(r"\s+")


def redial_chats(path: Path) -> Iterator[dict[str, Any]]:
    """One chat a dialogue: the seeker is the user; titles in place of ids, level 3 where the seeker liked a suggestion.

    Args:
        path: Gzipped lines of ReDial.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            saved = json.loads(line)
            known = (saved["movieMentions"] or {}).items()
            titles = {key: _SPACES.sub(" ", name) for key, name in known if name}
            seeker, answers = saved["initiatorWorkerId"], saved["initiatorQuestions"] or {}
            messages = [
                _message(message["text"], message["senderWorkerId"] == seeker, titles, answers)
                for message in saved["messages"]
            ]
            yield {"user_id": seeker, "messages": messages}


def _message(
    text: str, is_seeker: bool, titles: Mapping[str, str], answers: Mapping[str, Any]
) -> dict[str, Any]:
    named = [key for key in _MENTION.findall(text) if key in titles]
    row: dict[str, Any] = {
        "role": "user" if is_seeker else "assistant",
        "content": _MENTION.sub(lambda found: titles.get(found[1], found[0]), text),
    }
    if named and not is_seeker:
        row["title"] = titles[named[-1]]
        if named[-1] in answers:
            row["level"] = 3 if answers[named[-1]]["liked"] == 1 else 0
    return row
