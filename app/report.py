"""`report.json`, `report.html` and the summary on the terminal, from what the finished stages left.

    OUT/report.json     every figure, measured ones as {value, ci95, n}
    OUT/report.html     the same for people, one file that needs no network

But for `timing` and `peak_rss_mb`, `report.json` is a pure function of the stages' files, so a run that was stopped
and resumed ends with the same one, bit for bit.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from app.errors import StoreError
from app.files import read_json, write_atomically, write_json
from app.headlines import Headline, find, headlines
from app.manifest import read_config, read_manifest
from app.report_html import Portraits, render_report
from app.store import RECORD
from persona.rewards.attributes import ATTRIBUTES
from recsys.significance import bootstrap_interval
from simulators.recipes.rewriting import RewritingConfig

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
_RESAMPLES = 2000


class _Source(NamedTuple):
    """A file that a stage left, and the dotted paths without which the report would lack something."""

    stage: str
    name: str
    keys: tuple[str, ...]


_WORLD = _Source("world", "world.json", ("films", "users", "interactions", "levels"))
_RETRIEVAL = _Source("retrieval", "retrieval.json", ("gnolr", "ease", "popularity"))
_PREFERENCES = _Source(
    "preferences",
    "preferences.json",
    (
        *(f"accuracy.{name}.value" for name in ("pooled", "length_only", "oracle")),
        *(f"accuracy.{name}.k8.ci95" for name in ("vpl", "hierarchical_bayes")),
        "active_units",
        "context_shuffle_gap",
        "gaps_at_k8",
    ),
)
_MEASURE = _Source(
    "measure",
    "measure.json",
    (
        "policy.win_rate_conditioned_vs_average.ci95",
        "policy.win_rate_after_vs_before.ci95",
        *(
            f"policy.{name}.value"
            for name in ("exact_title_rate", "invented_title_rate", "invented_fact_rate")
        ),
        *(
            f"policy.sliders.{name}.{key}"
            for name in ATTRIBUTES
            for key in ("spearman", "curve", "values", "drags")
        ),
        *(
            f"dialogue.{name}.{part}"
            for name in ("satisfaction", "utility", "success_rate", "turns")
            for part in ("before.value", "after.value", "gain.ci95")
        ),
        "dialogue.goodhart_gap.ci95",
    ),
)
_MAP = _Source("map", "map.json", ("users", "latents", "attributes", "hidden_style", "shots", "opposed"))
_SAMPLES = _Source("map", "samples.json", ("dialogues", "answers"))


def write_report(folder: Path, *, console: Console | None = None) -> Path:
    """Write `report.json` and `report.html` of a finished run, and print its summary.

    Args:
        folder: The run's folder.
        console: Where the summary is printed; the terminal if not given.

    Returns:
        The path of `report.html`.

    Raises:
        StoreError: There is no run in the folder, a stage is not finished, a stage's file is damaged, or the folder
            cannot be written.
    """
    report = assemble_report(folder)
    portraits = Portraits(_read(folder, _MAP), _read(folder, _SAMPLES))
    lines = headlines(report)
    write_json(folder / REPORT_JSON, report)
    write_atomically(folder / REPORT_HTML, render_report(report, lines, portraits).encode())
    _print_summary(console or Console(), lines, folder / REPORT_HTML)
    return folder / REPORT_HTML


def needed_stages(rounds: int) -> list[str]:
    """The stages that a report reads, in the order of the run; the others only count towards its time."""
    talks = [f"talk-{number}" for number in range(1, rounds + 1)]
    return ["world", "retrieval", "preferences", "before", *talks, "after", "measure", "map"]


def assemble_report(folder: Path) -> dict[str, Any]:
    """What `report.json` holds.

    Args:
        folder: A run's folder, every stage finished.

    Returns:
        manifest, world, preference, policy, dialogue, rounds, retrieval, timing (seconds by stage, and `total`) and
        peak_rss_mb. Measured values carry `value`, `ci95` and `n`; one that could not be measured is None.

    Raises:
        StoreError: As for `write_report`.
    """
    manifest = read_manifest(folder)
    config = read_config(folder, manifest)
    rounds, seed = config.rounds, config.seed
    _check_finished(folder, needed_stages(rounds))
    measured = _read(folder, _MEASURE)
    stages = sorted(path.parent.name for path in (folder / "stages").glob(f"[!.]*/{RECORD}"))
    records = {name: _read(folder, _Source(name, RECORD, ("seconds", "peak_rss_mb"))) for name in stages}
    seconds = {name: record["seconds"] for name, record in records.items()}
    return {
        "manifest": manifest,
        "world": _read(folder, _WORLD),
        "preference": _read(folder, _PREFERENCES),
        "policy": measured["policy"],
        "dialogue": _dialogue(measured["dialogue"], folder, seed),
        "rounds": [_round(folder, number, seed) for number in range(1, rounds + 1)],
        "retrieval": _read(folder, _RETRIEVAL),
        "timing": {**seconds, "total": round(sum(seconds.values()), 3)},
        "peak_rss_mb": max(record["peak_rss_mb"] for record in records.values()),
    }


def _check_finished(folder: Path, names: Sequence[str]) -> None:
    missing = [name for name in names if not (folder / "stages" / name / RECORD).is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise StoreError(
            f"A report needs all stages of its run; got {folder} without {', '.join(missing[:3])}{more}. Finish it "
            "with `persona run` and the same settings, --out and --resume."
        )


def _read(folder: Path, source: _Source) -> dict[str, Any]:
    path = folder / "stages" / source.stage / source.name
    found = read_json(path)
    lacking = [key for key in source.keys if find(found, key) is None]
    if lacking:
        more = f" and {len(lacking) - 3} more" * (len(lacking) > 3)
        raise StoreError(
            f"{path} must hold everything that its stage measures; got it without {', '.join(lacking[:3])}{more}. "
            "Make the run anew in another folder."
        )
    return dict(found)


def _dialogue(found: Mapping[str, Any], folder: Path, seed: int) -> dict[str, Any]:
    """The stage's figures, with satisfaction by turn as intervals over users."""
    by_turn = {}
    for when in ("before", "after"):
        dialogues = read_json(folder / "stages" / when / "dialogues.json")
        longest = max(len(dialogue["turns"]) for dialogue in dialogues)
        by_turn[when] = [
            {"turn": index + 1, **_interval(np.asarray(_stars_at(dialogues, index)), seed)}
            for index in range(longest)
        ]
    kept = {name: part for name, part in found.items() if not name.startswith("satisfaction_by_turn")}
    return {**kept, "satisfaction_by_turn": by_turn}


def _stars_at(dialogues: Sequence[Mapping[str, Any]], index: int) -> list[float]:
    return [d["turns"][index]["satisfaction"] for d in dialogues if len(d["turns"]) > index]


def _round(folder: Path, number: int, seed: int) -> dict[str, Any]:
    """What one round of talking brought."""
    talk = _read(folder, _Source(f"talk-{number}", "talk.json", ("dialogues", "pairs", "fell_short")))
    dialogues = talk["dialogues"]
    stars = [[turn["satisfaction"] for turn in dialogue["turns"]] for dialogue in dialogues]
    accepted = np.bincount([pair[0] for pair in talk["pairs"]], minlength=len(dialogues))
    threshold = RewritingConfig().threshold
    short = np.asarray([sum(star <= threshold for star in own) for own in stars])
    return {
        "round": number,
        "dialogues": len(dialogues),
        "turns": sum(map(len, stars)),
        "fell_short": talk["fell_short"],
        "accepted": len(talk["pairs"]),
        "acceptance_rate": _ratio_interval(accepted, short, seed),
        "satisfaction": _interval(np.asarray([np.mean(own) for own in stars]), seed),
    }


def _interval(values: NDArray[np.float64], seed: int) -> dict[str, Any]:
    return bootstrap_interval(values, seed=seed).to_report()


def _ratio_interval(part: NDArray[np.int64], whole: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """A share of turns, with an interval that resamples the users whom the turns belong to.

    Args:
        part: Turns counted, by user. Shape (U,).
        whole: Turns they are counted among, by user. Shape (U,).
        seed: Draws the users.

    Returns:
        value, ci95 and n, the number of turns; value and ci95 are None where there is no turn.
    """
    turns = int(whole.sum())
    if not turns:
        return {"value": None, "ci95": None, "n": 0}
    drawn = np.random.default_rng(seed).integers(len(whole), size=(_RESAMPLES, len(whole)))
    parts, wholes = part[drawn].sum(1), whole[drawn].sum(1)
    shares = parts[wholes > 0] / wholes[wholes > 0]
    low, high = np.quantile(shares, (0.025, 0.975)).tolist()
    return {"value": float(part.sum() / turns), "ci95": [low, high], "n": turns}


def _print_summary(console: Console, lines: Sequence[Headline], page: Path) -> None:
    table = Table(title="Measured on users and prompts never trained on", title_justify="left")
    for title in ("", "figure", "value [95 % interval]", "goal", ""):
        table.add_column(title, justify="right" if title.startswith("value") else "left")
    last = ""
    for line in lines:
        if last and line.part != last:
            table.add_section()
        mark = {True: "[green]met[/]", False: "[red]not met[/]", None: ""}[line.met]
        table.add_row(line.part if line.part != last else "", line.name, line.shown, line.goal, mark)
        last = line.part
    console.print(table)
    console.print(f"Report: {page}", markup=False, soft_wrap=True)
