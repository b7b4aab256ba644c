"""A small file of comparisons with texts, of users who want short or long replies, with or without questions."""

import json
from pathlib import Path
from typing import Any

import numpy as np

FILLERS = (
    "It is a fine old town.",
    "You may like the river.",
    "There are many quiet streets.",
    "Go there early.",
)


def reply(rng: np.random.Generator) -> str:
    """A reply of one to six sentences, with questions and excited words at random."""
    parts = [FILLERS[place] for place in rng.integers(len(FILLERS), size=rng.integers(1, 7))]
    parts += ["Would you like that?"] * int(rng.integers(3)) + ["Wow, amazing!"] * int(rng.integers(3))
    return " ".join(parts[place] for place in rng.permutation(len(parts)))


def choices(
    *, users: int = 40, comparisons: int = 30, prompts: int = 80, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows of user_id, prompt, chosen, rejected; every user wants either shorter or longer replies, with noise."""
    rng = np.random.default_rng(seed)
    pool = {prompt: sorted({reply(rng) for _ in range(8)}) for prompt in range(prompts)}
    rows = []
    for user in range(users):
        wants_short = 1 if user % 2 else -1
        for prompt in rng.choice(prompts, size=comparisons, replace=comparisons > prompts).tolist():
            first, second = rng.choice(len(pool[prompt]), size=2, replace=False)
            one, other = pool[prompt][first], pool[prompt][second]
            advantage = 0.25 * wants_short * (len(other.split()) - len(one.split()))
            if rng.random() > 1.0 / (1.0 + np.exp(-advantage)):
                one, other = other, one
            row = {
                "user_id": f"u{user}",
                "prompt": f"Where to in town {prompt}?",
                "chosen": one,
                "rejected": other,
            }
            rows.append(row)
    return rows


def write_choices(path: Path, rows: list[dict[str, Any]] | None = None, **sizes: int) -> Path:
    """Write rows, or those of `choices`, as JSON lines."""
    lines = [json.dumps(row) for row in (choices(**sizes) if rows is None else rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
