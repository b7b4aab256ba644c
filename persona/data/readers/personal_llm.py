"""PersonalLLM: eight replies to each prompt, scored by ten public reward models; users are mixtures of these."""

import re
from typing import Any

import numpy as np
import pandas as pd

from persona.data.cleaning import Values, clean_texts, object_frame, to_number
from persona.data.preferences import PairRows
from persona.data.readers.files import RawRows
from persona.data.readers.options import ReadOptions
from persona.data.report import Dropped
from persona.data.simulated import simulate_users
from persona.errors import DataError

_REPLY = re.compile(r"response_(\d+)$")
_REWARD = re.compile(r"response_(\d+)_(.+)$")


def fits_personal_llm(frame: pd.DataFrame, options: ReadOptions) -> bool:
    """Whether there are several responses, each with scores by the same reward models."""
    return "prompt" in frame.columns and len(_replies(frame)) > 1 and bool(_models(frame))


def convert_personal_llm(raw: RawRows, options: ReadOptions) -> PairRows:
    """Choices of simulated users: Dirichlet weights over standardised rewards, without noise.

    Rewards are standardised over the replies of the file (the authors use constants of their own). A reply
    without all of its rewards is left out.
    """
    numbers, models = _replies(raw.frame), _models(raw.frame)
    parts = [
        object_frame({"prompt": raw.frame["prompt"], "reply": raw.frame[f"response_{number}"]}).assign(
            row=raw.numbers,
            user_id="nobody",
            group=np.arange(len(raw.frame)),
            **{f"reward {m}": _numbers(raw.frame[f"response_{number}_{m}"]) for m in models},
        )
        for number in numbers
    ]
    cleaned = clean_texts(pd.concat(parts, ignore_index=True), ("reply",), max_text=options.max_text)
    rewards = cleaned.frame[[f"reward {model}" for model in models]].to_numpy(dtype=np.float64)
    whole = np.isfinite(rewards).all(axis=1)
    rows = cleaned.frame["row"].to_numpy(dtype=np.int64)
    unrated = (Dropped.of("a reward is missing or not a number", rows[~whole]),) if not whole.all() else ()
    if not whole.any():
        raise DataError(
            f"`{raw.source}` must have replies with all of their {len(models)} rewards; got none. Give the whole file."
        )
    kept = cleaned.frame[whole].reset_index(drop=True)
    people = simulate_users(
        rewards[whole],
        kept["group"].to_numpy(dtype=np.int64),
        users=options.simulated_users,
        comparisons=options.simulated_comparisons,
        seed=options.seed,
        concentration=options.concentration,
        temperature=0.0,
        is_signed=False,
    )
    chosen, rejected = people.table.chosen, people.table.rejected
    frame = pd.DataFrame(
        {
            "row": kept["row"].to_numpy()[chosen],
            "user_id": [f"simulated-{user}" for user in people.table.users],
            "prompt": kept["prompt"].to_numpy()[chosen],
            "chosen": kept["reply"].to_numpy()[chosen],
            "rejected": kept["reply"].to_numpy()[rejected],
            "tie": people.advantage(people.table) == 0,
        }
    )
    same = (frame["chosen"] == frame["rejected"]).to_numpy()
    dropped = (*raw.dropped, *cleaned.dropped, *unrated)
    if same.any():
        dropped = (*dropped, Dropped.of("both replies are the same", frame["row"].to_numpy()[same]))
    note = (
        f"The users are simulated: {options.simulated_users:,} mixtures of {len(models)} reward models, drawn from a "
        f"Dirichlet with concentration {options.concentration:g} at seed {options.seed}."
    )
    return PairRows(frame[~same].reset_index(drop=True), dropped, (note,))


def _numbers(cells: "pd.Series[Any]") -> Values:
    return np.asarray([to_number(cell) for cell in cells], dtype=np.float64)


def _replies(frame: pd.DataFrame) -> list[int]:
    return sorted(int(found[1]) for name in map(str, frame.columns) if (found := _REPLY.match(name)))


def _models(frame: pd.DataFrame) -> list[str]:
    """Reward models that scored every response: columns of numbers, so not such as `response_1_model`."""
    numbers = set(_replies(frame))
    found: dict[str, set[int]] = {}
    for name in map(str, frame.columns):
        if (match := _REWARD.match(name)) and np.isfinite(_numbers(frame[name].head(20))).any():
            found.setdefault(match[2], set()).add(int(match[1]))
    return [model for model, scored in found.items() if numbers and scored >= numbers]
