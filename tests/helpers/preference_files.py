"""Small files in the layouts in which people publish preferences, written from the layouts' descriptions."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROW = {"user_id": "ann", "prompt": "a film?", "chosen": "yes", "rejected": "no"}
ASPECTS = ("instruction_following", "truthfulness", "honesty", "helpfulness")
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    """JSON lines, gzipped if the name says so."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def hh_row(asked: str, chosen: str, rejected: str) -> dict[str, str]:
    """One pair of HH-RLHF: two transcripts that differ in the last reply."""
    return {
        side: f"\n\nHuman: {asked}\n\nAssistant: {reply}"
        for side, reply in (("chosen", chosen), ("rejected", rejected))
    }


def completion(response: str, ratings: Iterable[Any], overall: float = 5.0) -> dict[str, Any]:
    """One completion of UltraFeedback, with its four ratings in the order of `ASPECTS`."""
    return {
        "model": "some-model",
        "response": response,
        "annotations": {
            aspect: {"Rating": rating, "Rationale": "because"}
            for aspect, rating in zip(ASPECTS, ratings, strict=True)
        },
        "overall_score": overall,
    }


def helpsteer_row(prompt: str, response: str, ratings: Iterable[Any]) -> dict[str, Any]:
    """One rated response of HelpSteer, ratings in the order of `ATTRIBUTES`."""
    return {"prompt": prompt, "response": response, **dict(zip(ATTRIBUTES, ratings, strict=True))}


def prism_conversation(
    number: int, user: str, turns: Iterable[tuple[str, list[tuple[str, Any]]]]
) -> dict[str, Any]:
    """One conversation of PRISM: for each turn what the user said, and the replies with their scores, best first."""
    history: list[dict[str, Any]] = []
    for place, (said, replies) in enumerate(turns):
        history.append({"turn": place, "role": "user", "content": said})
        history += [
            {
                "turn": place,
                "role": "model",
                "content": reply,
                "within_turn_id": within,
                "score": score,
                "if_chosen": within == 0,
                "model_name": "some-model",
            }
            for within, (reply, score) in enumerate(replies)
        ]
    return {"conversation_id": f"c{number}", "user_id": user, "conversation_history": history}


def prism_utterances(conversations: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same conversations in PRISM's long form, one row a rated reply."""
    rows: list[dict[str, Any]] = []
    for conversation in conversations:
        said = {t["turn"]: t["content"] for t in conversation["conversation_history"] if t["role"] == "user"}
        for turn in conversation["conversation_history"]:
            if turn["role"] == "model":
                rows.append(
                    {
                        "utterance_id": f"ut{len(rows)}",
                        "conversation_id": conversation["conversation_id"],
                        "user_id": conversation["user_id"],
                        "turn": turn["turn"],
                        "within_turn_id": turn["within_turn_id"],
                        "user_prompt": said[turn["turn"]],
                        "model_response": turn["content"],
                        "model_name": turn["model_name"],
                        "score": turn["score"],
                        "if_chosen": turn["if_chosen"],
                    }
                )
    return rows


def personal_llm_row(prompt: str, rewards: Iterable[tuple[float, float]]) -> dict[str, Any]:
    """One prompt of PersonalLLM: responses named by their place, each with the scores of two reward models."""
    row: dict[str, Any] = {"prompt": prompt, "subset": "some", "prompt_id": 1}
    for place, (gemma, mistral) in enumerate(rewards, start=1):
        row |= {
            f"response_{place}": f"{prompt} {place}",
            f"response_{place}_model": "some-model",
            f"response_{place}_gemma_2b": gemma,
            f"response_{place}_mistral_raft": mistral,
        }
    return row
