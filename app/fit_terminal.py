"""The tables of a comparison of profiles on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.fit_words import answer, figures, last_size, sentences, verdict_of
from app.headlines import show, show_value
from app.profile_methods import POOLED

Report = Mapping[str, Any]
# Columns of a terminal below which fewer figures are shown.
WIDE = 120


def print_fit(console: Console, report: Report) -> None:
    """Print the answer, the figures, and what may be said of them.

    Args:
        console: Where they go.
        report: What `profiles.json` holds.
    """
    console.print(f"[bold]{escape(answer(report))}[/]", soft_wrap=True)
    console.print()
    console.print(_main_table(report, is_wide=console.width >= WIDE))
    console.print(_curve_table(report))
    for sentence in sentences(report):
        console.print(sentence, markup=False, soft_wrap=True)


def ranked(report: Report) -> list[str]:
    """Methods, the best at the last context size first."""
    return sorted(report["order"], key=lambda name: -figures(report, name)["accuracy"]["value"])


def _main_table(report: Report, *, is_wide: bool) -> Table:
    table = _table(f"Choices foretold after {last_size(report)} comparisons, with 95 % intervals over users")
    table.add_column("method", no_wrap=True)
    heads = ["foretold, %", "over pooled, points", ""]
    heads += ["worst tenth, %", "log loss", "ECE", "shuffle gap", "ms a user"] if is_wide else ["worst, %"]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for name in ranked(report):
        own, method = figures(report, name), report["methods"][name]
        cells = [_bare(show(own["accuracy"], "share")), "", ""]
        if name != POOLED:
            cells[1:] = [_bare(show(own["over_pooled"], "points")), verdict_of(report, name)]
        if is_wide:
            cells += [
                _bare(show(own["worst_decile"], "share")),
                show_value(own["log_loss"]["value"], "metric"),
                show_value(own["ece"]["value"], "metric"),
                _bare(show(method["shuffle_gap"], "points")),
                f"{report['timing'][name]['new_user_ms']:.2f}",
            ]
        else:
            cells.append(_bare(show_value(own["worst_decile"]["value"], "share")))
        shown = f"[bold]{escape(name)}[/]" if verdict_of(report, name) == "better" else escape(name)
        table.add_row(shown, *cells)
    return table


def _curve_table(report: Report) -> Table:
    table = _table("Choices foretold, %, by comparisons known of the user")
    table.add_column("method", no_wrap=True)
    for size in report["context_sizes"]:
        table.add_column(str(size), justify="right", no_wrap=True)
    for name in ranked(report):
        by_size = report["methods"][name]["by_context"]
        values = [by_size[f"k{size}"]["accuracy"]["value"] for size in report["context_sizes"]]
        table.add_row(escape(name), *(f"{100 * value:.1f}" for value in values))
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _bare(text: str) -> str:
    """A figure without its unit, which stands in the head of its column."""
    return text.replace(" points", "").replace(" %", "")
