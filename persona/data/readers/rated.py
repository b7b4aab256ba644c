"""Layouts in which replies are rated: UltraFeedback, HelpSteer and HelpSteer2. Each aspect is one user."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from persona.data.cleaning import clean_texts, object_frame, to_number, to_ratings
from persona.data.preferences import RatedRows
from persona.data.readers.files import RawRows
from persona.data.readers.options import ReadOptions
from persona.data.readers.pairs import split_turns

ASPECTS = ("instruction_following", "truthfulness", "honesty", "helpfulness")
"""Aspects of UltraFeedback."""

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""Attributes of HelpSteer, of which more is not always better for everybody."""


def fits_ultrafeedback(frame: pd.DataFrame, options: ReadOptions) -> bool:
    """Whether rows have an instruction and a list of completions."""
    return {"instruction", "completions"} <= set(frame.columns)


def convert_ultrafeedback(raw: RawRows, options: ReadOptions) -> RatedRows:
    """Ratings of every completion of every instruction, 1 to 5 by aspect.

    The field `overall_score` is never read as a rating: in the first release it says 10 for some of the worst
    replies. Where that is met, the report says so.
    """
    rows = [
        (number, instruction, completion if isinstance(completion, dict) else {})
        for number, instruction, completions in zip(
            raw.numbers.tolist(), raw.frame["instruction"], raw.frame["completions"], strict=True
        )
        for completion in (completions if isinstance(completions, (list, np.ndarray)) else [{}])
    ]
    columns: dict[str, list[Any]] = {
        "prompt": [row[1] for row in rows],
        "reply": [row[2].get("response") for row in rows],
        **{aspect: [_rating(row[2], aspect) for row in rows] for aspect in ASPECTS},
    }
    numbers = np.asarray([row[0] for row in rows], dtype=np.int64)
    overall = [to_number(row[2].get("overall_score")) for row in rows]
    frame = object_frame(columns).assign(row=numbers, group=numbers, overall=overall)
    part = _finish_ratings(frame, raw, options, ASPECTS)
    mean = np.stack(list(part.scores.values())).mean(axis=0)
    trap = int(((part.frame["overall"].to_numpy() == 10) & (mean <= 2)).sum())
    if not trap:
        return part
    note = (
        f"{trap:,} replies have the overall score 10 with a mean rating of at most 2, a fault of the first "
        "release of UltraFeedback; overall scores are not used."
    )
    return part._replace(notes=(*part.notes, note))


def fits_helpsteer(frame: pd.DataFrame, options: ReadOptions) -> bool:
    """Whether rows have a prompt, one response and the attributes."""
    return {"prompt", "response", *ATTRIBUTES} <= set(frame.columns)


def convert_helpsteer(raw: RawRows, options: ReadOptions) -> RatedRows:
    """Ratings of every response, 0 to 4 by attribute.

    HelpSteer2 has two responses to a prompt in consecutive rows; these two alone are compared, even if the
    prompt comes again. In HelpSteer all responses to one prompt are compared.
    """
    prompts = pd.Series(list(map(str, raw.frame["prompt"])), dtype=object)
    run = (prompts != prompts.shift()).cumsum().to_numpy(dtype=np.int64)
    is_second = bool(np.bincount(run).max(initial=0) <= 2)
    columns: dict[str, list[Any]] = {
        "prompt": [split_turns(prompt) for prompt in raw.frame["prompt"]],
        "reply": raw.frame["response"].tolist(),
        **{name: raw.frame[name].tolist() for name in ATTRIBUTES},
    }
    group = run if is_second else pd.factorize(prompts)[0]
    frame = object_frame(columns).assign(row=raw.numbers, group=group)
    return _finish_ratings(frame, raw, options, ATTRIBUTES)


def _finish_ratings(
    frame: pd.DataFrame, raw: RawRows, options: ReadOptions, names: Sequence[str]
) -> RatedRows:
    cleaned = clean_texts(frame.assign(user_id="nobody"), ("reply",), max_text=options.max_text)
    ratings, unrated = to_ratings(cleaned.frame[list(names)], cleaned.frame["row"].to_numpy(dtype=np.int64))
    kept = cleaned.frame.drop(columns=[*names, "user_id"])
    scores = {name: ratings[:, a] for a, name in enumerate(names)}
    dropped = (*raw.dropped, *cleaned.dropped, *unrated)
    if options.by_aspect:
        return RatedRows(kept, ratings, tuple(names), scores, dropped)
    # A reply that lacks an aspect has no mean, so it is compared with none.
    mean = ratings.mean(axis=1, keepdims=True)
    return RatedRows(kept, mean, (options.user or "everyone",), scores, dropped)


def _rating(completion: dict[str, Any], aspect: str) -> Any:
    annotations = completion.get("annotations")
    annotation = annotations.get(aspect) if isinstance(annotations, dict) else None
    # Some releases hold a list with one annotation.
    if isinstance(annotation, (list, np.ndarray)):
        annotation = annotation[0] if len(annotation) else None
    return annotation.get("Rating") if isinstance(annotation, dict) else None
