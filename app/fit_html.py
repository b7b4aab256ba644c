"""`profiles.html`: one file that needs no network, readable in light and dark, with a table beside every plot.

Every text of the data is escaped, and the page's policy lets a browser run the two scripts written here and nothing
else, and load nothing from anywhere.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from app import fit_plots as plots
from app.fit_tables import fit_tables, plot_tables
from app.fit_terminal import ranked
from app.fit_words import answer, diagnostics_meanings, last_size, sentences, title_of
from app.headlines import show
from app.pages import fingerprint, page_environment, page_scripts, read_template
from app.profile_methods import POOLED
from app.report_html import Plot

_WIDEST_BAR_REM = 14.0
# Curves that a plot of noisy points can hold.
_CLEAREST = 3
Report = Mapping[str, Any]


class Readable(NamedTuple):
    """How well one attribute can be read from the features.

    name: Of the attribute.
    shown: R2 in words.
    width: Of its bar, in rem.
    third: Share of replies whose third is told right, in words.
    third_sure: The same where the classifier is sure.
    """

    name: str
    shown: str
    width: float
    third: str
    third_sure: str


def render_fit(report: Report) -> str:
    """The whole page.

    Args:
        report: What `profiles.json` holds.

    Returns:
        HTML; the same input gives the same bytes.
    """
    scripts = page_scripts()
    return (
        page_environment()
        .get_template("profiles.html.j2")
        .render(
            report=report,
            answer=answer(report),
            sentences=sentences(report),
            diagnostics=diagnostics_meanings(report),
            better=report["best"]["definition"] if report["comparisons"] else "",
            plots=_plots(report),
            tables=fit_tables(report),
            readable=_readable(report),
            style=Markup(read_template("report.css")),
            own_style=Markup(read_template("profiles.css")),
            manifest=json.dumps(report["manifest"], indent=2, sort_keys=True, ensure_ascii=False),
            # Written by this project and by Plotly, so they may stand in the page as they are.
            scripts=[Markup(script) for script in scripts],
            script_hashes=Markup(" ".join(fingerprint(script) for script in scripts)),
        )
    )


def _plots(report: Report) -> dict[str, Plot]:
    names, best, size = ranked(report), report["best"]["name"], last_size(report)
    personal = [name for name in names if name != POOLED]
    shown = [name for name in names if name == POOLED or name in personal[:_CLEAREST]]
    tables = plot_tables(report)
    found = [
        Plot(
            "accuracy",
            "Choices foretold against comparisons known",
            "Unseen users on unseen prompts. Bands are 95 % intervals over users, of the best method and of one model "
            "for everybody. Methods share their users, so bands that overlap do not settle a comparison: the table "
            "below does.",
            plots.accuracy_figure(report, names),
            tables["accuracy"],
        ),
    ]
    if plots.has_calibration(report, [name for name in shown if name != POOLED] or [POOLED]):
        found.append(
            Plot(
                "calibration",
                "Is it as often right as it says?",
                f"After {size} comparisons, by how sure a method says to be. Above the dashed line it is right more "
                f"often than it says, below it less. Bins with fewer than {plots.LEAST_CHOICES} choices are left out, "
                f"and so are methods beyond the best {_CLEAREST} and one model for everybody; the table has all.",
                plots.calibration_figure(report, shown),
                tables["calibration"],
            )
        )
    if personal:
        found.append(
            Plot(
                "forest",
                "What each method adds",
                f"Difference from one model for everybody after {size} comparisons, user by user, with 95 % intervals.",
                plots.forest_figure(report, personal),
                tables["forest"],
            )
        )
    if best != POOLED:
        title = title_of(report, best)
        found += [
            Plot(
                "gains",
                f"Who gains: {title}",
                f"Users by what they gain over one model for everybody after {size} comparisons. Few choices are asked "
                "of each user, so part of the spread is chance.",
                plots.gains_figure(report, best),
                tables["gains"],
            ),
            Plot(
                "map",
                f"Map of the unseen users: {title}",
                f"Where up to {size} comparisons put each unseen user of the first split: the two widest axes of the "
                "beliefs, 0 being the average user. Colour and mark show the attribute in which the belief is the "
                "farthest from the average user; filled where more of it is wanted, hollow where less.",
                plots.map_figure(report),
                tables["map"],
            ),
        ]
    return {plot.key: plot for plot in found}


def _readable(report: Report) -> list[Readable]:
    found = []
    for name, value in sorted(report["features"]["attribute_r2"].items(), key=lambda it: -(it[1] or 0.0)):
        width = round(_WIDEST_BAR_REM * min(max(value or 0.0, 0.0), 1.0), 2)
        thirds = report["features"]["attribute_thirds"][name] or {}
        right = [show({"value": thirds.get(key)}, "share") for key in ("accuracy", "accuracy_confident")]
        found.append(Readable(name, "not measured" if value is None else f"{value:.2f}", width, *right))
    return found
