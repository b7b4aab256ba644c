"""One user's portrait in words, for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.headlines import show, show_value

SURE = 0.8
"""Probability from which a wish is said in words."""
SLIGHT = 0.05
"""Log-odds a deviation below which a wish, however sure, decides hardly any choice and is not said in words."""
_SHOWN_CHOICES = 3
_TEXT = 160
_MOST_SURE = 0.99
Told = Mapping[str, Any]


def print_portrait(console: Console, told: Told) -> None:
    """Print what is known of a user.

    Args:
        console: Where it goes.
        told: As `persona whois --json` prints it.
    """
    console.print(f"[bold]{escape(summary(told))}[/]", soft_wrap=True)
    console.print(doubt(told), markup=False, soft_wrap=True)
    if told["left_out"]:
        console.print(f"Left out of the file: {'; '.join(told['left_out'])}.", markup=False, soft_wrap=True)
    console.print()
    console.print(_wishes(told["wishes"]))
    console.print()
    console.print("[bold]The choices that told most[/]")
    for choice in told["telling_choices"][:_SHOWN_CHOICES]:
        _print_choice(console, choice)
    console.print()
    if not told["questions"]:
        console.print("There is no pair left to ask about.")
        return
    question = told["questions"][0]
    console.print(
        f"[bold]The next best question[/] (worth {question['gain_bits']:.2f} bits; the first is preferred with "
        f"{show_value(question['probability_of_first'], 'share')})"
    )
    for label in ("prompt", "first", "second"):
        _print_text(console, label, question[label])


def summary(told: Told) -> str:
    """What the user wants, in a sentence or two."""
    counted = f"{told['choices']} {'choice' if told['choices'] == 1 else 'choices'}"
    known = [
        f"{wish['words']} ({show_value(min(wish['sure'], _MOST_SURE), 'share')} sure)"
        for wish in told["wishes"]
        if wish["sure"] >= SURE and abs(wish["mean"]) >= SLIGHT
    ]
    unsure = [wish["attribute"] for wish in told["wishes"] if wish["sure"] < SURE]
    if not known:
        return f"After {counted}, nothing that {told['user']} wants is sure yet. A few more will tell."
    rest = f" Still open: {', '.join(unsure)}." if unsure else ""
    return f"After {counted}, {told['user']} wants {_join(known)}, compared with the average user.{rest}"


def doubt(told: Told) -> str:
    """How far all this is to be trusted, in a sentence or two."""
    measured = told["measured"]
    known = f"{measured['known']} comparison{'s' * (measured['known'] != 1)}"
    left = told["doubt_left"]
    still = "" if left is None else f"{show_value(left, 'share')} of the doubt about a stranger is left. "
    return (
        f"{still}The profile "
        f"({told['title']}) expects to foretell {show_value(told['expects_to_foretell'], 'share')} of this user's next "
        f"choices, and {show_value(told['expects_of_a_stranger'], 'share')} of a stranger's; on unseen users it "
        f"foretold {show(measured['accuracy'], 'share')} after {known}."
    )


def _wishes(wishes: Sequence[Told]) -> Table:
    table = Table(
        title="Wishes over the average user's, in log-odds a deviation of the attribute, with 95 % intervals",
        title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0),
    )  # fmt: skip
    table.add_column("attribute", no_wrap=True)
    table.add_column("wants", no_wrap=True)
    table.add_column("how strongly", justify="right", no_wrap=True)
    table.add_column("sure", justify="right", no_wrap=True)
    for wish in wishes:
        strength = show({"value": wish["mean"], "ci95": [wish["low"], wish["high"]]}, "gain")
        sure = show_value(min(wish["sure"], _MOST_SURE), "share")
        wants = (
            "open" if wish["sure"] < SURE else wish["words"] if abs(wish["mean"]) >= SLIGHT else "no matter"
        )
        table.add_row(escape(wish["attribute"]), wants, strength, sure)
    return table


def _print_choice(console: Console, choice: Told) -> None:
    told = f", for {choice['words']}" if choice["words"] else ""
    console.print(
        f"Choice {choice['place']} moves other predictions by {100 * choice['influence']:.1f} points on average{told}; "
        f"without it, it was expected with {show_value(choice['expected'], 'share')}.",
        markup=False,
        soft_wrap=True,
    )
    for label in ("prompt", "chosen", "rejected"):
        _print_text(console, label, choice[label])


def _print_text(console: Console, label: str, text: str) -> None:
    console.print(f"  {label + ':':<10}{_short(text)}", markup=False, highlight=False, soft_wrap=True)


def _short(text: str) -> str:
    """A text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _TEXT else line[: _TEXT - 4] + " ..."


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
