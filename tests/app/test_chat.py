import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from app.chat import chat
from app.errors import StoreError
from app.trained import TrainedRun
from tests.helpers.scripted_run import ScriptedRun, tiny_run


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedRun:
    trained = ScriptedRun()
    monkeypatch.setattr(TrainedRun, "open", lambda folder, agent: trained)
    return trained


def talk(lines: Sequence[str] | None, folder: Path = Path("run")) -> list[str]:
    """What the terminal shows, one reply or error a line."""
    console = Console(file=io.StringIO(), width=80)
    chat(folder, lines=lines, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.usefixtures("scripted")
def test_slider_words_the_reply_to_the_same_question_anew() -> None:
    usual, short, long = talk(["something good", "/brevity 1", "/brevity -1"])
    assert usual.startswith("persona> Try ") and short.startswith("persona (brevity 1)> Try ")
    assert long.startswith("persona (brevity -1)> Try ")
    assert len(short) < len(long)
    film = short.partition("Try ")[2]
    assert film in usual and film in long


@pytest.mark.usefixtures("scripted")
def test_average_is_what_the_reply_was_without_sliders() -> None:
    usual, _, average = talk(["something good", "/brevity 1", "/average"])
    assert average == usual.replace("persona>", "average user>")


@pytest.mark.usefixtures("scripted")
def test_reset_forgets_sliders_and_conversation() -> None:
    first, _, told, again = talk(["something good", "/brevity 1", "/reset", "something good"])
    assert told == "reset> conversation forgotten, every slider at 0"
    assert again == first


@pytest.mark.usefixtures("scripted")
def test_film_brings_another_one_and_like_names_it() -> None:
    first, second, liked = talk(["something good", "/film", "/like"])
    assert first != second
    assert liked.removeprefix("liked> ") in second


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/brevty 1", "got `/brevty`. Did you mean `/brevity`?"),
        ("/", "got `/`. Write `/help` for what each does."),
        ("/brevity", "must be followed by a number from -1 to 1; got ''."),
        ("/brevity much", "got 'much'. Write for example `/brevity 0.8`."),
        ("/warmth 2", "Slider `warmth` must lie between -1 and 1; got 2.0."),
        ("/warmth nan", "Slider `warmth` must lie between -1 and 1; got nan."),
        ("/film", "must have been recommended first"),
        ("/like", "must have been recommended first"),
        ("/average", "must have been recommended first"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line_and_the_talk_goes_on(line: str, says: str) -> None:
    error, reply = talk([line, "something good"])
    assert says in error
    assert reply.startswith("persona> ")


@pytest.mark.usefixtures("scripted")
def test_quit_ends_before_the_next_line() -> None:
    assert talk(["/quit", "something good"]) == []


@pytest.mark.usefixtures("scripted")
def test_empty_lines_are_skipped() -> None:
    assert talk(["", "  "]) == []


@pytest.mark.usefixtures("scripted")
def test_help_names_every_command_with_the_slider_values() -> None:
    shown = "\n".join(talk(["/warmth -0.5", "/help"]))
    for command in ("/brevity", "/enthusiasm", "/film", "/like", "/average", "/reset", "/quit"):
        assert command in shown
    assert "now -0.5" in shown


@pytest.mark.usefixtures("scripted")
def test_markup_in_words_is_shown_as_it_is(scripted: ScriptedRun) -> None:
    assert "[red]" in talk(["/[red]"])[0]


@pytest.mark.usefixtures("scripted")
def test_input_that_is_no_terminal_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("something good\n/film\n"))
    assert len(talk(None)) == 2


@pytest.mark.usefixtures("scripted")
def test_bytes_that_are_not_utf_8_do_not_end_the_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = io.TextIOWrapper(io.BytesIO(b"caf\xe9\n/film\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", typed)
    assert [line.partition(">")[0] for line in talk(None)] == ["persona", "persona"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("scripted")
def test_terminal_gets_help_and_ends_with_ctrl_d(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", _Terminal("something good\n"))
    shown = talk(None)
    assert "naming a genre restricts the films" in shown[0]
    assert any("persona> Try" in line for line in shown)


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must hold manifest\.json; got .*, without one"):
        talk([], tmp_path)


@pytest.mark.integration
def test_finished_run_answers_with_every_slider_in_its_own_way(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tiny_run(tmp_path_factory.getbasetemp())
    shown = talk(["Hello, I want a comedy.", "/brevity 1", "/brevity -1"], folder)
    assert len({line.partition("> ")[2] for line in shown}) == 3
