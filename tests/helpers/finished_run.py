"""The files that the stages of a run leave, made up, so that the report can be tested without a run."""

from pathlib import Path
from typing import Any

from app.config import RunConfig
from app.files import write_json
from persona.rewards.attributes import ATTRIBUTES

USERS = 3


def measure(value: float, low: float, high: float, n: int = USERS) -> dict[str, Any]:
    return {"value": value, "ci95": [low, high], "n": n}


def around(value: float) -> dict[str, Any]:
    return measure(value, value - 0.05, value + 0.05)


def dialogue(user: int, stars: list[float], *, title: str, said: str = "Something funny?") -> dict[str, Any]:
    words = {"raw": said, "text": said}
    reply = {"raw": "<title> is good.", "text": f"{title} is good."}
    turns = [
        {
            "user": words,
            "item": 0,
            "title": title,
            "facts": {"year": "1999"},
            "reply": reply,
            "level": 3,
            "satisfaction": star,
            "complaint": ["warmth", -1] if star < 3 else None,
            "next": words,
            "stop": None,
        }
        for star in stars
    ]
    return {"user": user, "stop": "accepted", "turns": turns}


def preferences() -> dict[str, Any]:
    curve = {f"k{k}": around(0.6 + 0.01 * k) for k in (0, 2, 4, 8)}
    over = {"k0": {"over_baseline": measure(0.0, -0.01, 0.01)}}
    return {
        "accuracy": {
            "pooled": around(0.6),
            "length_only": around(0.62),
            "oracle": around(0.8),
            "hierarchical_bayes": curve,
            "vpl": curve,
        },
        "gaps_at_k8": {
            "vpl_over_pooled": measure(0.12, 0.04, 0.2),
            "vpl_over_hierarchical_bayes": around(0.0),
            "oracle_over_vpl": around(0.12),
        },
        "gap_closed": 0.4,
        "active_units": measure(4.0, 3.0, 5.0),
        "context_shuffle_gap": around(0.1),
        "details": {"vpl": over},
    }


def measured() -> dict[str, Any]:
    sliders = {
        name: {
            "spearman": measure(0.9, 0.8, 0.95),
            "curve": [-1.0, -0.4, 0.0, 0.5, 1.2],
            "values": [-1.0, -0.5, 0.0, 0.5, 1.0],
            "drags": {other: -0.25 for other in ATTRIBUTES if other != name},
        }
        for name in ATTRIBUTES
    }
    change = {"before": around(3.0), "after": around(3.5), "gain": measure(0.5, 0.4, 0.6)}
    return {
        "policy": {
            "win_rate_conditioned_vs_average": measure(0.7, 0.6, 0.8),
            "win_rate_after_vs_before": measure(0.65, 0.55, 0.75),
            "worst_decile_gain_conditioned_vs_average": 0.1,
            "sliders": sliders,
            "exact_title_rate": measure(1.0, 1.0, 1.0, 60),
            "invented_title_rate": measure(0.0, 0.0, 0.0, 60),
            "invented_fact_rate": measure(0.0, 0.0, 0.0, 60),
        },
        "dialogue": {
            **{name: change for name in ("satisfaction", "utility", "turns")},
            "success_rate": {"before": around(0.5), "after": around(0.6), "gain": around(0.1)},
            "goodhart_gap": measure(0.0, -0.1, 0.1),
            "satisfaction_by_turn_before": [],
            "satisfaction_by_turn_after": [],
        },
    }


def retrieval() -> dict[str, Any]:
    plain = {"ndcg@10": around(0.2), "recall@20": around(0.3)}
    gaps = {"ndcg@10_over_popularity": around(0.1), "ndcg@10_over_ease": around(-0.04)}
    return {"gnolr": {**plain, **gaps}, "ease": plain, "popularity": plain}


def world(*, later: bool = False) -> dict[str, Any]:
    levels = {"ignored": 0.8, "opened": 0.1, "saved": 0.05, "watched": 0.04, "loved": 0.01}
    found: dict[str, Any] = {"films": 2400, "users": 40, "interactions": 900, "levels": levels}
    if later:
        names = ("log_loss_simulated_users", "log_loss_item_mean", "log_loss_saved")
        found["later_ratings"] = {name: around(0.3) for name in names}
    return found


def write_run(folder: Path, *, title: str = "The Quiet Harbour", later: bool = False, **changes: Any) -> None:
    """Fabricate a finished run of two rounds.

    Args:
        folder: Where; must exist.
        title: Title of every film that is talked about, and what every user says.
        later: Whether the world has real later ratings.
        changes: Fields of the configuration.
    """
    config = RunConfig(rounds=2).model_copy(update=changes)
    write_json(
        folder / "manifest.json",
        {"config": config.model_dump(), "seed": config.seed, "data_hashes": {}, "device": "cpu"},
    )
    talks = [dialogue(user, [2.0, 4.0], title=title, said=title) for user in range(USERS)]
    pairs = [[row, [{"role": "user", "content": "hi"}], "better", "worse"] for row in (0, 1)]
    answer = {"question": title, "title": title, "average": title, "first": title, "second": title}
    write_stage(folder, "world", world=world(later=later))
    write_stage(folder, "retrieval", retrieval=retrieval())
    write_stage(folder, "replies")
    write_stage(folder, "preferences", preferences=preferences())
    write_stage(folder, "before", dialogues=[*talks[:2], dialogue(2, [5.0], title=title)])
    write_stage(folder, "policy")
    write_stage(folder, "talk-1", talk={"dialogues": talks, "pairs": pairs, "fell_short": 3})
    write_stage(folder, "talk-2", talk={"dialogues": talks, "pairs": [], "fell_short": 3})
    write_stage(folder, "learn-1")
    write_stage(folder, "learn-2")
    write_stage(folder, "after", dialogues=talks)
    write_stage(folder, "measure", measure=measured())
    write_stage(
        folder,
        "map",
        map={
            "users": [4, 7, 9],
            "latents": [[1.0, 0.5, 0.0], [-1.0, 0.5, 0.0], [0.0, 0.1, 0.0]],
            "attributes": list(ATTRIBUTES),
            "hidden_style": [[1.0, 0, 0, 0, 0, 0], [0, -2.0, 0, 0, 0, 0.5], [0.1, 0, 0, 0, 0, 0.5]],
            "shots": 8,
            "opposed": [0, 1],
        },
        samples={
            "dialogues": [{"row": row, "before": talks, "after": talks} for row in (0, 1)],
            "answers": [answer] * 3,
        },
    )


def write_stage(folder: Path, stage: str, *, seconds: float = 1.5, **contents: Any) -> None:
    """One stage's record and its JSON files, by name."""
    place = folder / "stages" / stage
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "stage.json", {"seconds": seconds, "peak_rss_mb": 500.0 + seconds})
    for name, content in contents.items():
        write_json(place / f"{name}.json", content)
