import io

import pytest
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from app.terminal import PlainConsole, plain

# Clears the screen, renames the window, begins a sequence in one character, rings, goes back, and deletes.
HOSTILE = "Al\x1b[2Ji\x1b]0;owned\x07en\x9b31m \x08\x7f\r(1979)"
TAMED = "Al[2Ji]0;owneden31m (1979)"


def shown(*what: object, console: type[Console] = PlainConsole, **how: object) -> str:
    file = io.StringIO()
    terminal = console(
        file=file, force_terminal=True, color_system="truecolor", width=60, legacy_windows=False
    )
    for one in what:
        terminal.print(one, highlight=False, **how)  # type: ignore[arg-type]
    return file.getvalue()


def listed(title: str) -> Table:
    table = Table(title=escape(title), caption=Text(title))
    table.add_column(escape(title))
    table.add_row(Text(title, "bold red"))
    table.add_row(f"[green]{escape(title)}[/]")
    return table


def test_a_text_loses_its_control_characters_and_nothing_else() -> None:
    assert plain(HOSTILE) == TAMED
    assert plain("two\nlines\tand ünïcode — 日本語") == "two\nlines\tand ünïcode — 日本語"
    assert not any(plain(chr(code)) for code in (*range(9), *range(11, 32), *range(127, 160)))


def test_no_sequence_of_a_title_reaches_the_terminal_wherever_it_stands() -> None:
    assert "\x1b[2J" in shown(HOSTILE, console=Console, markup=False)  # what the plain console is for
    found = shown(HOSTILE, listed(HOSTILE), markup=False)
    for sequence in ("\x1b[2J", "\x1b]", "\x07", "\x08", "\x7f", "\x9b", "\r"):
        assert sequence not in found
    assert found.count(TAMED) == 6


def test_styles_of_the_program_and_the_grid_are_those_of_a_harmless_title() -> None:
    assert shown(listed(HOSTILE)) == shown(listed(TAMED))
    assert shown(listed(TAMED)) == shown(listed(TAMED), console=Console)
    assert "\x1b[" in shown(listed(TAMED))


@pytest.mark.parametrize("console", [Console, PlainConsole])
def test_the_consoles_own_controls_are_kept(console: type[Console]) -> None:
    file = io.StringIO()
    terminal = console(file=file, force_terminal=True, width=40, legacy_windows=False)
    with Live("working", console=terminal, auto_refresh=False, transient=True):
        pass
    hides, shows = "\x1b[?25l", "\x1b[?25h"
    assert hides in file.getvalue() and shows in file.getvalue()
