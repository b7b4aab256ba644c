"""What each control of the demo does, as plain functions from session data to what is shown; no browser needed."""

import html
from typing import NamedTuple

import plotly.graph_objects as go

from app import talk as moves
from app.demo.plots import attribute_bars, belief_plot, latent_plot
from app.demo.teaching import Lesson, Teacher, describe
from app.talk import Talk
from app.trained import TrainedRun
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from simulators.grounding import slot_values

SLIDER_INFO = {
    "brevity": "long … short",
    "warmth": "cool … warm",
    "plainness": "rich words … plain words",
    "reasons": "none … many",
    "curiosity": "asks nothing … asks much",
    "enthusiasm": "calm … excited",
}
"""What the ends of each slider mean, in the order of `ATTRIBUTES`."""


class TalkView(NamedTuple):
    """Everything that the tab "Talk" shows, in the order of its components.

    talk: The session's conversation.
    messages: The chat, as role and content.
    card: HTML of the recommended film's facts.
    average: HTML of the average user's reply.
    figure: Measured attributes of both replies.
    """

    talk: Talk
    messages: list[dict[str, str]]
    card: str
    average: str
    figure: go.Figure


class TeachView(NamedTuple):
    """Everything that the tab "Teach me" shows, in the order of its components.

    lesson: What the session has taught.
    question: Markdown of the question that both replies answer.
    first: HTML of the first reply.
    second: HTML of the second reply.
    summary: Markdown that says what the choices tell.
    belief: Plot of the belief about attributes.
    latent: Plot of the posterior of the latent.
    """

    lesson: Lesson
    question: str
    first: str
    second: str
    summary: str
    belief: go.Figure
    latent: go.Figure


class Person(NamedTuple):
    """What the controls say about the person.

    lesson: What was taught.
    use_lesson: Whether replies follow it.
    sliders: In the order of `ATTRIBUTES`, -1 to 1.
    """

    lesson: Lesson
    use_lesson: bool
    sliders: tuple[float, ...]


class Demo:
    """One trained run behind the controls of any number of sessions; it holds nothing of a session.

    Args:
        trained: The run.
    """

    def __init__(self, trained: TrainedRun) -> None:
        """Prepare what all sessions share."""
        self._trained = trained
        self._teacher = Teacher(trained.pool, trained.profile, trained.features)

    def begin_talk(self) -> Talk:
        """A conversation in which nothing was said."""
        return Talk()

    def begin_lesson(self) -> Lesson:
        """A person of whom nothing is known, with a first choice on offer."""
        return self._teacher.begin()

    def send(self, message: str, talk: Talk, person: Person) -> TalkView:
        """Answer a message; raises what `app.talk.say` raises."""
        return self.show_talk(moves.say(self._trained, talk, message, self._condition(person)))

    def reword(self, talk: Talk, person: Person) -> TalkView:
        """Answer the last question anew, after a slider has moved or something was learned."""
        return self.show_talk(moves.reword(self._trained, talk, self._condition(person)))

    def another_film(self, talk: Talk, person: Person) -> TalkView:
        """Answer the last question with another film; raises what `app.talk.another_film` raises."""
        return self.show_talk(moves.another_film(self._trained, talk, self._condition(person)))

    def like(self, talk: Talk) -> TalkView:
        """Remember that the person likes the film; raises what `app.talk.like` raises."""
        return self.show_talk(moves.like(talk))

    def show_talk(self, talk: Talk) -> TalkView:
        """The view of a conversation."""
        messages = []
        for exchange in talk.exchanges:
            messages += [
                {"role": "user", "content": exchange.said.text},
                {"role": "assistant", "content": exchange.reply.text},
            ]
        last = talk.last
        if last is None:
            nothing = _quote(
                "Ask for a film, and the reply that everybody else would get appears here.", "hint"
            )
            return TalkView(talk, messages, _card_html(None, liked=False), nothing, attribute_bars(None))
        measured = self._trained.measure([last.reply, last.average], last.card)
        liked = talk.met.get(last.card.item, 0) > 0
        return TalkView(
            talk,
            messages,
            _card_html(slot_values(last.card), liked=liked),
            _quote(last.average.text, "same as yours" if last.average.text == last.reply.text else ""),
            attribute_bars(measured),
        )

    def pick(self, lesson: Lesson, side: int) -> TeachView:
        """Learn that the first (0) or the second (1) reply is preferred."""
        return self.show_lesson(self._teacher.pick(lesson, side))

    def skip(self, lesson: Lesson) -> TeachView:
        """Offer two other replies."""
        return self.show_lesson(self._teacher.skip(lesson))

    def undo(self, lesson: Lesson) -> TeachView:
        """Take the last choice back; raises TalkError if there is none."""
        return self.show_lesson(self._teacher.undo(lesson))

    def show_lesson(self, lesson: Lesson) -> TeachView:
        """The view of what was taught."""
        pool = self._trained.pool
        prompt = int(pool.prompt_of[lesson.offer.first])
        title = self._trained.run.world.catalogue.card(pool.cards[prompt]).title
        belief = self._teacher.belief(lesson)
        first, second = (_quote(pool.replies[row].text) for row in lesson.offer)
        return TeachView(
            lesson,
            _bubble(pool.openings[prompt].text, title),
            first,
            second,
            describe(belief, len(lesson.picks)),
            belief_plot(belief),
            latent_plot(self._teacher.posterior(lesson)),
        )

    def _condition(self, person: Person) -> Condition:
        latent = self._teacher.posterior(person.lesson).mean[0] if person.use_lesson else None
        return self._trained.condition(dict(zip(ATTRIBUTES, person.sliders, strict=True)), latent)


def _card_html(facts: dict[str, str] | None, *, liked: bool) -> str:
    if facts is None:
        return '<div class="film-card"><p class="hint">The film of the last reply appears here.</p></div>'
    rows = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in facts.items()
        if name != "title"
    )
    mark = ' <span class="liked" title="you like it">♥</span>' if liked else ""
    return f'<div class="film-card"><h3>{html.escape(facts["title"])}{mark}</h3><dl>{rows}</dl></div>'


def _quote(text: str, note: str = "") -> str:
    words = html.escape(text)
    if note == "hint":
        return f'<div class="reply"><p class="hint">{words}</p></div>'
    extra = f'<p class="hint">{html.escape(note)}</p>' if note else ""
    return f'<div class="reply"><p>{words}</p>{extra}</div>'


def _bubble(question: str, title: str) -> str:
    return (
        f'<div class="question"><p class="hint">Somebody asks, and {html.escape(title)} is recommended:</p>'
        f"<p>{html.escape(question)}</p></div>"
    )
