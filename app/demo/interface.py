"""The page: components, and which function of `handlers.Demo` each control calls.

Session data lives in `gr.State` alone. Everything that changes a conversation shares one queue of width 1: replies are
worded one batch at a time, and one session's moves never overtake one another. Choices have a queue of their own, so
nobody waits with them for a reply.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import gradio as gr

from app.demo.handlers import SLIDER_INFO, Demo, Person, TalkView
from app.demo.teaching import Lesson
from app.errors import AppError
from app.talk import Talk
from persona.errors import PersonaError
from persona.rewards.attributes import ATTRIBUTES
from recsys.errors import RecsysError
from simulators.errors import SimulatorError

STYLE = Path(__file__).with_name("style.css")
"""Style sheet of the page."""

KEYS = """() => {
    document.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && event.target.matches("input[type=number]")) event.target.blur();
    });
    document.addEventListener("keyup", (event) => {
        const released = new PointerEvent("pointerup", {bubbles: true});
        if (event.target.matches("input[type=range]")) event.target.dispatchEvent(released);
    });
}"""
"""Script of the page: a slider set by keys counts as released, as one set by hand does."""

_MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress": "minimal"}
_QUICK: dict[str, Any] = {"concurrency_id": "quick", "concurrency_limit": 4, "show_progress": "hidden"}

_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Session(NamedTuple):
    """Where one session's data live on the page."""

    talk: gr.State
    lesson: gr.State
    use_lesson: gr.Checkbox
    sliders: list[gr.Slider]

    @property
    def person(self) -> list[Any]:
        """Inputs that say who is asking."""
        return [self.talk, self.lesson, self.use_lesson, *self.sliders]


def build_interface(demo: Demo) -> gr.Blocks:
    """The page over a trained run.

    Args:
        demo: What the controls do.

    Returns:
        Blocks, to be launched with `theme()`, `STYLE` and `KEYS`.
    """
    page = gr.Blocks(title="Persona", analytics_enabled=False, fill_width=True)
    with page:
        gr.Markdown(
            "# Persona\nOne model for everybody, answering each in that person's own way. Set the sliders, or "
            "teach it by choosing; the film and its facts stay the same, only the way of telling changes.",
            elem_id="head",
        )
        talk, lesson = gr.State(lambda: demo.begin_talk()), gr.State(lambda: demo.begin_lesson())
        with gr.Tabs():
            with gr.Tab("Talk", id="talk"):
                session = _build_talk(demo, talk, lesson, page)
            with gr.Tab("Teach me", id="teach"):
                _build_teach(demo, session, page)
    return page


def theme() -> gr.themes.Base:
    """Colours, and fonts that the machine has: none is fetched."""
    fonts = ["system-ui", "sans-serif"]
    return gr.themes.Soft(
        primary_hue="teal", secondary_hue="teal", neutral_hue="stone", font=fonts, font_mono="monospace"
    )


def _build_talk(demo: Demo, talk: gr.State, lesson: gr.State, page: gr.Blocks) -> _Session:
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=240):
            gr.Markdown("### How shall it talk?")
            sliders = [_slider(name) for name in ATTRIBUTES]
            use_lesson = gr.Checkbox(False, label="Use what you learned about me", elem_id="use-lesson")
            reset = gr.Button("All sliders to 0", size="sm", elem_id="reset-sliders")
        with gr.Column(scale=6, min_width=320):
            chatbot = gr.Chatbot(
                label="Your conversation", height=430, render_markdown=False, feedback_options=None, buttons=[],
                placeholder="Ask for a film: “Hello, can you find me a comedy for tonight?”", elem_id="chat",
            )  # fmt: skip
            message = gr.Textbox(
                placeholder="What would you like to watch?", show_label=False, submit_btn=True, max_length=500,
                autofocus=True, elem_id="message",
            )  # fmt: skip
            with gr.Row():
                film = gr.Button("Another film", size="sm", elem_id="film")
                like = gr.Button("I like this film", size="sm", elem_id="like")
                clear = gr.Button("Start again", size="sm", elem_id="clear")
        with gr.Column(scale=5, min_width=300):
            card = gr.HTML(elem_id="card")
            gr.Markdown("### The average user would read")
            average = gr.HTML(elem_id="average")
            figure = gr.Plot(show_label=False, elem_id="attributes")
    session = _Session(talk, lesson, use_lesson, sliders)
    view = [talk, chatbot, card, average, figure]

    def send(words: str, held: Talk, *who: Any) -> tuple[Any, ...]:
        return ("", *_told(demo.send)(words, held, _person(*who)))

    def reword(held: Talk, *who: Any) -> TalkView:
        return _told(demo.reword)(held, _person(*who))

    def follow(held: Talk, taught: Lesson, use: bool, *values: float) -> TalkView:
        # What was just taught reaches the reply that is shown only if the person wants it to.
        return reword(held, taught, use, *values) if use else demo.show_talk(held)

    def another(held: Talk, *who: Any) -> TalkView:
        return _told(demo.another_film)(held, _person(*who))

    def reset_sliders(held: Talk, taught: Lesson, use: bool) -> tuple[Any, ...]:
        zeros = (0.0,) * len(ATTRIBUTES)
        return (*zeros, *_told(demo.reword)(held, Person(taught, use, zeros)))

    message.submit(send, [message, *session.person], [message, *view], **_MODEL)
    moved = [slider.release for slider in sliders]
    gr.on([*moved, use_lesson.input], reword, session.person, view, trigger_mode="always_last", **_MODEL)
    lesson.change(follow, session.person, view, trigger_mode="always_last", **_MODEL)
    film.click(another, session.person, view, **_MODEL)
    reset.click(reset_sliders, [talk, lesson, use_lesson], [*sliders, *view], **_MODEL)
    like.click(_told(demo.like), talk, view, **_MODEL)
    gr.on(
        [clear.click, chatbot.clear, page.load],
        lambda: demo.show_talk(demo.begin_talk()),
        None,
        view,
        **_MODEL,
    )
    return session


def _slider(name: str) -> gr.Slider:
    info = SLIDER_INFO[name]
    return gr.Slider(
        -1, 1, 0, step=0.1, label=name.capitalize(), info=info, elem_id=f"slider-{name}", buttons=[]
    )


def _build_teach(demo: Demo, session: _Session, page: gr.Blocks) -> None:
    gr.Markdown("### Which reply would you rather get?")
    question = gr.HTML(elem_id="question")
    with gr.Row(equal_height=True, elem_id="choice"):
        with gr.Column():
            first = gr.HTML(elem_id="first")
            pick_first = gr.Button("This one", variant="primary", elem_id="pick-first")
        with gr.Column():
            second = gr.HTML(elem_id="second")
            pick_second = gr.Button("This one", variant="primary", elem_id="pick-second")
    with gr.Row():
        skip = gr.Button("Neither, show others", size="sm", elem_id="skip")
        undo = gr.Button("Take my last choice back", size="sm", elem_id="undo")
        forget = gr.Button("Forget me", size="sm", elem_id="forget")
    summary = gr.Markdown(elem_id="summary")
    with gr.Row():
        belief = gr.Plot(label="What you seem to want", elem_id="belief")
        latent = gr.Plot(label="Your place among users", elem_id="latent")
    lesson = session.lesson
    view = [lesson, question, first, second, summary, belief, latent]
    pick_first.click(lambda held: demo.pick(held, 0), lesson, view, **_QUICK)
    pick_second.click(lambda held: demo.pick(held, 1), lesson, view, **_QUICK)
    skip.click(_told(demo.skip), lesson, view, **_QUICK)
    undo.click(_told(demo.undo), lesson, view, **_QUICK)
    forget.click(lambda: demo.show_lesson(demo.begin_lesson()), None, view, **_QUICK)
    page.load(lambda: demo.show_lesson(demo.begin_lesson()), None, view, **_QUICK)


def _person(lesson: Lesson, use_lesson: bool, *sliders: float) -> Person:
    return Person(lesson, use_lesson, sliders)


def _told(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function`, with what the packages raise on purpose shown to the user as one sentence."""

    @wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except (AppError, PersonaError, RecsysError, SimulatorError) as err:
            raise gr.Error(" ".join(str(err).split()), title="Not possible", print_exception=False) from err

    return wrapped
