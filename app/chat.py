"""`persona chat`: talk with the trained policy in the terminal, sliders set by commands such as `/brevity 0.8`."""

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app import talk as moves
from app.errors import AppError, TalkError
from app.talk import Exchange, Talk
from app.trained import TrainedRun
from persona.errors import PersonaError
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from recsys.errors import RecsysError
from simulators.errors import SimulatorError

_COMMANDS = {
    "film": "another film for the same question",
    "like": "remember that you like this film, so that later ones are near it",
    "average": "the answer that the average user would get to the same question",
    "reset": "forget the conversation and set every slider to 0",
    "help": "this list",
    "quit": "end the conversation",
}


class ChatSession:
    """One person at a terminal: sliders, conversation, and what each line typed does.

    Attributes:
        sliders: Wanted amount of each attribute, -1 to 1.
        talk: The conversation so far.
        over: Whether the person has ended it.
    """

    def __init__(self, trained: TrainedRun, console: Console) -> None:
        """Begin with every slider at 0."""
        self.sliders = dict.fromkeys(ATTRIBUTES, 0.0)
        self.talk = Talk()
        self.over = False
        self._trained = trained
        self._console = console
        self._actions: dict[str, Callable[[], None]] = {
            "film": self._another_film,
            "like": self._like,
            "average": self._show_average,
            "reset": self._reset,
            "help": self.show_help,
            "quit": self._quit,
        }

    def handle(self, line: str) -> None:
        """Do what one line asks for and print the answer.

        Raises:
            TalkError: An unknown command, a slider without a number, or nothing to act on.
            DataError: A slider outside -1..1.
        """
        text = line.strip()
        if text.startswith("/"):
            self._obey(text)
        elif text:
            self.talk = moves.say(self._trained, self.talk, text, self._condition())
            self._show_reply()

    def show_help(self) -> None:
        """Print every command with what it does."""
        table = Table.grid(padding=(0, 2))
        for name in ATTRIBUTES:
            table.add_row(f"/{name} N", f"slider from -1 to 1, now {self.sliders[name]:g}")
        for name, meaning in _COMMANDS.items():
            table.add_row(f"/{name}", meaning)
        self._console.print(
            "Write what you would like to watch; naming a genre restricts the films.", markup=False
        )
        self._console.print(table)

    def _obey(self, text: str) -> None:
        name, _, value = text[1:].partition(" ")
        known = [*ATTRIBUTES, *_COMMANDS]
        if name in ATTRIBUTES:
            self._set_slider(name, value.strip())
        elif name in self._actions:
            self._actions[name]()
        else:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            advice = f"Did you mean `/{near[0]}`?" if near else "Write `/help` for what each does."
            raise TalkError(
                f"A command must be one of {', '.join(f'/{c}' for c in known)}; got `/{name}`. {advice}"
            )

    def _set_slider(self, name: str, value: str) -> None:
        try:
            sliders = {**self.sliders, name: float(value)}
        except ValueError as err:
            raise TalkError(
                f"`/{name}` must be followed by a number from -1 to 1; got {value!r}. Write for example "
                f"`/{name} 0.8`."
            ) from err
        self.talk = moves.reword(self._trained, self.talk, self._trained.condition(sliders))
        self.sliders = sliders
        if self.talk.last is not None:
            self._show_reply()

    def _another_film(self) -> None:
        self.talk = moves.another_film(self._trained, self.talk, self._condition())
        self._show_reply()

    def _like(self) -> None:
        self.talk = moves.like(self.talk)
        self._print("liked", self._last().card.title, "green")

    def _show_average(self) -> None:
        self._print("average user", self._last().average.text, "yellow")

    def _reset(self) -> None:
        self.sliders = dict.fromkeys(ATTRIBUTES, 0.0)
        self.talk = Talk()
        self._print("reset", "conversation forgotten, every slider at 0", "green")

    def _quit(self) -> None:
        self.over = True

    def _condition(self) -> Condition:
        return self._trained.condition(self.sliders)

    def _last(self) -> Exchange:
        return moves.last_exchange(self.talk)

    def _show_reply(self) -> None:
        turned = [f"{name} {value:g}" for name, value in self.sliders.items() if value]
        self._print(
            f"persona ({', '.join(turned)})" if turned else "persona", self._last().reply.text, "cyan"
        )

    def _print(self, speaker: str, words: str, colour: str) -> None:
        # One line a reply, however long: what is piped elsewhere can be read by line.
        self._console.print(Text.assemble((f"{speaker}> ", colour), words), soft_wrap=True)


def chat(
    run_dir: Path, *, agent: str = "last", lines: Iterable[str] | None = None, console: Console | None = None
) -> None:
    """Talk until the person quits or the input ends; what cannot be done is told in one line and the talk goes on.

    Args:
        run_dir: Folder of a finished run.
        agent: Who answers; see `app.agents`.
        lines: What is typed; None reads standard input, with a prompt where a person sits at it.
        console: Where answers are shown.

    Raises:
        ConfigError: There is no such agent.
        StoreError: The folder holds no finished run.
    """
    shown = console or Console()
    session = ChatSession(TrainedRun.open(run_dir, agent), shown)
    if lines is None and isinstance(sys.stdin, io.TextIOWrapper):
        # Bytes that are not text become a mark that says so, rather than the end of the conversation.
        sys.stdin.reconfigure(errors="replace")
    if lines is None and sys.stdin.isatty():
        session.show_help()
        lines = _typed_lines(shown)
    for line in sys.stdin if lines is None else lines:
        try:
            session.handle(line)
        except (AppError, PersonaError, RecsysError, SimulatorError) as err:
            shown.print(Text(" ".join(str(err).split()), "red"), soft_wrap=True)
        if session.over:
            break


def _typed_lines(console: Console) -> Iterator[str]:
    """Lines that a person types, until Ctrl-D or Ctrl-C."""
    while True:
        try:
            yield console.input("[bold]you> [/bold]")
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
