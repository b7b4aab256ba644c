"""The tables of `report.html` as plain texts: those of the page, and those that stand beside the plots."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from app import plots
from app.headlines import Report, Unit, as_measure, show, show_value
from simulators.types import LEVELS

_RETRIEVERS = {"gnolr": "GNOLR", "ease": "EASE", "popularity": "popularity"}
_DIALOGUE_ROWS: tuple[tuple[str, str, Unit, Unit], ...] = (
    ("satisfaction", "satisfaction, stars", "number", "gain"),
    ("utility", "true utility of film and reply", "number", "gain"),
    ("success_rate", "dialogues that end in success", "share", "points"),
    ("turns", "turns", "number", "gain"),
)


class Table(NamedTuple):
    """A table whose first column names its rows.

    caption: What it shows.
    head: Titles of the columns.
    rows: Cells as texts, one for each column.
    """

    caption: str
    head: list[str]
    rows: list[list[str]]


def report_tables(report: Report) -> dict[str, Table]:
    """The tables of the page by name: dialogue, rounds, retrieval, grounding, world, and later where ratings are real.

    Args:
        report: What `report.json` holds.
    """
    policy, dialogue = report["policy"], report["dialogue"]
    found = {
        "dialogue": Table(
            "Dialogues of unseen users before and after training, means over users",
            ["measure", "before", "after", "change"],
            [
                [
                    title,
                    show(dialogue[key]["before"], unit),
                    show(dialogue[key]["after"], unit),
                    show(dialogue[key]["gain"], change),
                ]
                for key, title, unit, change in _DIALOGUE_ROWS
            ],
        ),
        "rounds": _rounds_table(report["rounds"]),
        "retrieval": _retrieval_table(report["retrieval"]),
        "grounding": measures_table(
            "How replies hold to the card of facts",
            {
                "name their film exactly": policy["exact_title_rate"],
                "name another film": policy["invented_title_rate"],
                "state something that is not on the card": policy["invented_fact_rate"],
            },
            "share",
        ),
        "world": _world_table(report["world"]),
    }
    if "later_ratings" in report["world"]:
        found["later"] = _later_table(report["world"]["later_ratings"])
    return found


def measures_table(caption: str, measures: Mapping[str, Any], unit: Unit) -> Table:
    """One row a figure, with its interval and the number of users or replies that it comes from.

    Args:
        caption: What the table shows.
        measures: Figures by the words that name them.
        unit: The unit of all of them.
    """
    rows = [
        [name, show(as_measure(found), unit), str(as_measure(found)["n"])] for name, found in measures.items()
    ]
    return Table(caption, ["", "value [95 % interval]", "n"], rows)


def _rounds_table(rounds: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            str(part["round"]),
            *(str(part[key]) for key in ("dialogues", "turns", "fell_short", "accepted")),
            show(part["acceptance_rate"], "share"),
            show(part["satisfaction"], "number"),
        ]
        for part in rounds
    ]
    head = ["round", "dialogues", "turns", "fell short", "rewrites accepted", "acceptance", "satisfaction"]
    return Table("Rounds of talking and training", head, rows)


def _retrieval_table(retrieval: Mapping[str, Any]) -> Table:
    metrics = ("ndcg@10", "ndcg@20", "recall@10", "recall@20")
    shown = [metric for metric in metrics if metric in retrieval["gnolr"]]
    rows = [
        [title, *(show(as_measure(retrieval[name].get(metric)), "metric") for metric in shown)]
        for name, title in _RETRIEVERS.items()
    ]
    return Table(
        "Ranking the full catalogue for unseen users", ["", *(m.replace("ndcg", "NDCG") for m in shown)], rows
    )


def _world_table(world: Mapping[str, Any]) -> Table:
    sizes = [[name, f"{world[name]:,}"] for name in ("films", "users", "interactions")]
    shares = [[f"impressions {level}", show_value(world["levels"][level], "share")] for level in LEVELS]
    return Table("What the world holds", ["", "value"], [*sizes, *shares])


def _later_table(later: Mapping[str, Any]) -> Table:
    rows: dict[str, tuple[Any, Unit]] = {
        "simulated users": (later["log_loss_simulated_users"], "metric"),
        "item-mean rule": (later["log_loss_item_mean"], "metric"),
        "saved by the simulated users": (later["log_loss_saved"], "metric_gain"),
    }
    return Table(
        "Real later ratings foretold: log loss in nats a rating, means over users",
        ["", "log loss [95 % interval]", "users"],
        [[name, show(measure, unit), str(measure["n"])] for name, (measure, unit) in rows.items()],
    )


def accuracy_table(accuracy: Mapping[str, Any]) -> Table:
    """Share of choices foretold by number of comparisons known; `accuracy` is `preference.accuracy` of a report."""
    sizes = plots.context_sizes(accuracy["vpl"])
    rows = [
        [str(size), *(show(accuracy[name][f"k{size}"], "share") for name in ("vpl", "hierarchical_bayes"))]
        for size in sizes
    ]
    level = [show(accuracy[name], "share") for name in ("pooled", "length_only", "oracle")]
    return Table(
        "Choices foretold, by comparisons known",
        ["comparisons", "latent profile", "hierarchical Bayes", "average user", "length alone", "oracle"],
        [[*row, *level] for row in rows],
    )


def map_table(portrait: Mapping[str, Any]) -> Table:
    """Each unseen user's place on the map and strongest true wish; `portrait` is what the stage "map" left."""
    rows = []
    for user, latent, style in zip(
        portrait["users"], portrait["latents"], portrait["hidden_style"], strict=True
    ):
        place, likes = plots.strongest_wish(style)
        wish = f"{'more' if likes else 'less'} {portrait['attributes'][place]}"
        rows.append([f"user {user}", *(f"{value:.2f}" for value in latent[:2]), wish])
    width = min(2, len(portrait["latents"][0]))
    return Table(
        "Unseen users on the map",
        ["user", *("first coordinate", "second coordinate")[:width], "weighs most, in truth"],
        rows,
    )


def turns_table(by_turn: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Satisfaction at each turn that anyone reached; `by_turn` is `dialogue.satisfaction_by_turn` of a report."""
    known = {(when, row["turn"]): row for when, rows in by_turn.items() for row in rows}
    rows = []
    for turn in sorted({turn for _, turn in known}):
        cells = [str(turn)]
        for when in ("before", "after"):
            row = known.get((when, turn))
            cells += [show(row, "number"), str(row["n"])] if row else ["nobody", "0"]
        rows.append(cells)
    return Table("Satisfaction by turn", ["turn", "before", "users", "after", "users"], rows)
