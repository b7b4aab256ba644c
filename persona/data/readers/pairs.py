"""Rows of pairs in TRL's columns plus the user, and two layouts near them: HH-RLHF and HelpSteer2's preferences.

Prompt and replies may be texts or lists of messages, with the prompt in a column of its own or as the beginning
that both replies share.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from persona.data.cleaning import apply_rules, clean_texts, is_missing, object_frame, to_number
from persona.data.preferences import PairRows
from persona.data.readers.files import RawRows
from persona.data.readers.options import ReadOptions
from persona.errors import DataError

COLUMNS = ("user_id", "prompt", "chosen", "rejected")
SCORES = (("chosen_score", "rejected_score"), ("score_chosen", "score_rejected"))
"""Names under which ratings of the two replies are found; equal ones make a tie."""

HH_SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
_TURN = re.compile(r"\n\n(Human|Assistant):")
_OPENING, _REPLY = "\n\nHuman:", "\n\nAssistant:"
_ROLES = {"Human": "user", "Assistant": "assistant"}


def fits_pairs(frame: pd.DataFrame, options: ReadOptions) -> bool:
    """Whether there are columns for both replies, under our names or under those that `options` gives."""
    return {options.columns.get(name, name) for name in ("chosen", "rejected")} <= set(frame.columns)


def fits_hh_rlhf(frame: pd.DataFrame, options: ReadOptions) -> bool:
    """Whether the only texts are two transcripts from `Human:` on."""
    if not {"chosen", "rejected"} <= set(frame.columns) or "prompt" in frame.columns:
        return False
    starts = (
        frame["chosen"].head(20).map(lambda text: isinstance(text, str) and text.startswith("\n\nHuman:"))
    )
    return bool(starts.mean() > 0.5)


def convert_pairs(raw: RawRows, options: ReadOptions) -> PairRows:
    """Comparisons from rows with a user, a prompt and two replies.

    Raises:
        DataError: A column is missing.
    """
    frame = _rename(raw.frame, options.columns)
    if "user_id" not in frame.columns and options.user is not None:
        frame = frame.assign(user_id=options.user)
    is_split = "prompt" in frame.columns
    missing = [name for name in COLUMNS if name not in frame.columns and (is_split or name != "prompt")]
    if missing:
        raise DataError(
            f"Rows of pairs must have the columns {', '.join(COLUMNS)}; `{raw.source}` lacks {', '.join(missing)} "
            f"among {', '.join(map(str, raw.frame.columns))}. Rename them with `columns`, or name one `user` for all."
        )
    if not is_split:
        frame = frame.assign(prompt=None)
    parts = [
        _split_messages(*row) for row in zip(frame["prompt"], frame["chosen"], frame["rejected"], strict=True)
    ]
    texts = object_frame(dict(zip(("prompt", "chosen", "rejected"), zip(*parts, strict=True), strict=True)))
    frame = pd.concat([frame.drop(columns=list(texts)).reset_index(drop=True), texts], axis=1)
    frame = frame.assign(row=raw.numbers)
    return _finish_pairs(frame, raw, options)


def convert_hh_rlhf(raw: RawRows, options: ReadOptions) -> PairRows:
    """Comparisons from pairs of transcripts; what both share, up to the last `Assistant:`, is the prompt.

    Users are unknown, unless a column `user_id` has them: `options.user` names one for all, else it is the subset
    whose file a row is from, or `everyone`.
    """
    parts = [
        _split_transcripts(*pair) for pair in zip(raw.frame["chosen"], raw.frame["rejected"], strict=True)
    ]
    prompts, chosen, rejected = zip(*parts, strict=True)
    given = _rename(raw.frame, options.columns)
    known = [name for name in ("user_id", "subset") if name in given.columns]
    users = [options.user or "everyone"] * len(given) if options.user or not known else given[known[0]]
    frame = object_frame({"user_id": users, "prompt": prompts, "chosen": chosen, "rejected": rejected})
    frame = frame.assign(row=raw.numbers)
    different = apply_rules(
        frame,
        {"the two transcripts do not end in replies to one prompt": lambda f: f["prompt"].map(is_missing)},
    )
    done = _finish_pairs(different.frame, raw, options)
    return done._replace(dropped=(*raw.dropped, *different.dropped, *done.dropped[len(raw.dropped) :]))


def fits_strengths(frame: pd.DataFrame, options: ReadOptions) -> bool:
    """Whether these are the preferences of HelpSteer2."""
    return {"prompt", "response_1", "response_2", "preference_strength"} <= set(frame.columns)


def convert_strengths(raw: RawRows, options: ReadOptions) -> PairRows:
    """Comparisons from HelpSteer2's preferences: -3 (first much better) to 3 (second much better), 0 a tie."""
    given = raw.frame["preference_strength"].map(to_number).to_numpy(dtype=np.float64)
    first, second = (raw.frame[name].to_numpy(dtype=object) for name in ("response_1", "response_2"))
    texts: dict[str, Any] = {
        "prompt": [split_turns(prompt) for prompt in raw.frame["prompt"]],
        "chosen": np.where(given > 0, second, first),
        "rejected": np.where(given > 0, first, second),
    }
    frame = object_frame(texts).assign(
        row=raw.numbers, user_id=options.user or "everyone", tie=given == 0, strength=np.abs(given)
    )
    known = apply_rules(frame, {"the strength is missing or not a number": lambda f: f["strength"].isna()})
    done = _finish_pairs(known.frame, raw, options)
    return done._replace(dropped=(*raw.dropped, *known.dropped, *done.dropped[len(raw.dropped) :]))


def split_turns(prompt: Any) -> Any:
    """HelpSteer's prompt: a text, or messages where earlier turns are marked by `<extra_id_1>`."""
    if not isinstance(prompt, str) or "<extra_id_1>" not in prompt:
        return prompt
    opening, *later = prompt.split("<extra_id_1>")
    turns = [("User", opening), *(tuple(turn.split("\n", 1)) for turn in later if "\n" in turn)]
    return [
        {"role": "assistant" if role.strip() == "Assistant" else "user", "content": text.strip("\n")}
        for role, text in turns
        if text.strip()
    ]


def _rename(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The frame with our names for the columns that `columns` maps; a column that has our name already gives way."""
    unknown = sorted(set(columns) - {*COLUMNS, "tie", "strength", "context", "scores", *SCORES[0]})
    if unknown:
        raise DataError(
            f"`columns` must map names of ours ({', '.join(COLUMNS)}, tie, strength, context, scores, "
            f"{', '.join(SCORES[0])}); "
            f"got {', '.join(unknown)}. Put our name first and the file's second."
        )
    replaced = [ours for ours, theirs in columns.items() if ours != theirs and theirs in frame.columns]
    return frame.drop(columns=replaced, errors="ignore").rename(columns={v: k for k, v in columns.items()})


def _finish_pairs(frame: pd.DataFrame, raw: RawRows, options: ReadOptions) -> PairRows:
    texts = clean_texts(frame, ("chosen", "rejected"), max_text=options.max_text)
    frame = _with_ties(texts.frame, options.slack)
    cleaned = apply_rules(
        frame,
        {
            "both replies are the same": lambda f: f["chosen"] == f["rejected"],
            "a tie flag is neither true nor false": lambda f: f["tie"].map(is_missing),
            "a score is missing or not a number": lambda f: f["gap"].isna(),
            "`scores` does not map objectives to two numbers": lambda f: (
                f["scores"].map(is_missing) if "scores" in f else np.zeros(len(f))
            ),
            "the chosen reply is rated below the rejected one": lambda f: f["gap"] < -options.slack,
        },
    )
    frame = cleaned.frame.assign(
        user_id=cleaned.frame["user_id"].map(_name), tie=cleaned.frame["tie"].astype(bool)
    )
    return PairRows(frame, (*raw.dropped, *texts.dropped, *cleaned.dropped))


def _with_ties(frame: pd.DataFrame, slack: float) -> pd.DataFrame:
    """The frame with what can be None where a cell cannot be read: `tie`, `gap` (rated ahead by), `scores`."""
    gap = np.full(len(frame), np.inf)
    named = next((names for names in SCORES if set(names) <= set(frame.columns)), None)
    scores: pd.Series[Any] | None = frame["scores"].map(_scores) if "scores" in frame.columns else None
    if named is not None:
        high, low = (frame[name].map(to_number).to_numpy(dtype=np.float64) for name in named)
        gap = high - low
        given = [{"score": pair} for pair in zip(high.tolist(), low.tolist(), strict=True)]
        scores = pd.Series(given, dtype=object) if scores is None else scores
    flags = (
        frame["tie"].map(_flag) if "tie" in frame.columns else pd.Series(np.abs(gap) <= slack, dtype=object)
    )
    # A pair that is marked as a tie may be rated either way round.
    gap = np.where(flags.eq(True).to_numpy(dtype=bool), np.maximum(gap, 0.0), gap)
    frame = frame.drop(columns="scores", errors="ignore").assign(tie=flags, gap=gap)
    if "strength" in frame.columns:
        frame = frame.assign(strength=frame["strength"].map(to_number))
    if "context" in frame.columns:
        frame = frame.assign(context=frame["context"].map(_criterion))
    return frame if scores is None else frame.assign(scores=scores)


def _scores(cell: Any) -> dict[str, tuple[float, float]] | None:
    """Ratings of (chosen, rejected) by objective; empty where there are none, None where they cannot be read."""
    if is_missing(cell):
        return {}
    if isinstance(cell, (list, tuple, np.ndarray)):
        cell = {"score": cell}
    if not isinstance(cell, Mapping):
        return None
    # Parquet gives every row the objectives of all rows, those that it lacks as None.
    pairs = {str(name): pair for name, pair in cell.items() if not is_missing(pair)}
    if not all(isinstance(pair, (list, tuple, np.ndarray)) and len(pair) == 2 for pair in pairs.values()):
        return None
    return {name: (to_number(pair[0]), to_number(pair[1])) for name, pair in pairs.items()}


def _criterion(value: object) -> str:
    """A criterion in words; empty where a cell names none."""
    return value.strip() if isinstance(value, str) else ""


def _flag(value: object) -> bool | None:
    words = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": False}
    return False if is_missing(value) else words.get(str(value).strip().lower())


def _name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)


def _split_messages(prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """Replies as texts where they are messages, what goes before the last one moved into the prompt."""
    if not (_is_messages(chosen) and _is_messages(rejected)):
        return prompt, chosen, rejected
    before, other = list(chosen[:-1]), list(rejected[:-1])
    if before != other:
        return None, None, None
    asked = _as_messages(prompt)
    # Many exports repeat the prompt in front of the replies.
    if before and asked is not None and before != asked:
        prompt = before if before[: len(asked)] == asked else [*asked, *before]
    return prompt, chosen[-1].get("content"), rejected[-1].get("content")


def _is_messages(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray)) and len(value) > 0 and isinstance(value[-1], Mapping)


def _as_messages(prompt: Any) -> list[Any] | None:
    """A prompt as messages; None where it is neither text nor a list, which a rule will find."""
    if is_missing(prompt):
        return []
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return list(prompt) if isinstance(prompt, (list, tuple, np.ndarray)) else None


def _split_transcripts(chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """Messages that both share, and the two replies; None for all three where the transcripts do not fit."""
    nothing = (None, None, None)
    if not (isinstance(chosen, str) and isinstance(rejected, str)):
        return nothing
    # Replies may begin alike, so the last `Assistant:` tells where they begin, not the first difference.
    end = chosen.rfind(_REPLY) + len(_REPLY)
    replies = chosen[end:], rejected[end:]
    if end < len(_REPLY) or not rejected.startswith(chosen[:end]) or any(map(_TURN.search, replies)):
        return nothing
    pieces = _TURN.split(chosen[: end - len(_REPLY)])
    messages = [
        {"role": _ROLES[role], "content": text.strip()}
        for role, text in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    return messages or None, replies[0].strip(), replies[1].strip()
