"""What AILO's language model is told, in the five-call and in the merged form.

Parts that stay the same come first, so that a server's prefix cache reads them once: the task (the same for all users),
the persona (the same all dialogue long), the conversation (which grows at its end), and only then the state of the
turn. Messages of either side are put on one line, so that nobody can speak for the other.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from simulators.chat.model import Message
from simulators.types import Dialogue, ItemCard, Utterance
from simulators.users import ailo_wording as wording
from simulators.users.ailo_types import Intent
from simulators.users.disclosure import Tellable, interest_words
from simulators.users.personas import Persona, Target

YOU, RECOMMENDER, SHOWN, NEW, LEFT = "You", "Recommender", "Shown", "Tell now", "Patience left"
"""Labels of the lines of a prompt."""

_ACTIVITIES = {
    "efficiency-seeking": "you want to be done soon",
    "detail-oriented": "you want to know exactly what you get",
    "exploration-oriented": "you want to be shown what you would not have found",
}
_BARS = {
    "lenient": "easily pleased",
    "even": "neither easily pleased nor hard to please",
    "strict": "hard to please",
}
ATTRIBUTE_WORDS = {
    "brevity": "brevity",
    "warmth": "warmth",
    "plainness": "plain words",
    "reasons": "reasons",
    "curiosity": "questions",
    "enthusiasm": "enthusiasm",
}
"""What a persona's prompt calls each attribute of a reply."""


class TurnContext(NamedTuple):
    """Everything that is said to the model about one turn of one user.

    persona: Who the user is.
    talk: Each message so far with its speaker, the reply to react to last; empty before the user's first words.
    card: The item that was shown with that reply; None before the first.
    telling: What the user tells for the first time in its next message.
    patience: Disappointing turns that the user still puts up with, this one included.
    lapse: Whether the user is absent-minded.
    """

    persona: Persona
    talk: tuple[tuple[str, str], ...]
    card: ItemCard | None
    telling: tuple[Tellable, ...]
    patience: int
    lapse: bool


def talk_of(dialogue: Dialogue, reply: Utterance | None = None) -> tuple[tuple[str, str], ...]:
    """The messages of a dialogue with their speakers, and then a reply to what was said last."""
    said: list[tuple[str, Utterance]] = []
    for turn in dialogue.turns:
        said += [(YOU, turn.user), (RECOMMENDER, turn.reply)]
    if reply is not None:
        if dialogue.said is not None:
            said.append((YOU, dialogue.said))
        said.append((RECOMMENDER, reply))
    return tuple((speaker, _one_line(words.text)) for speaker, words in said)


def persona_block(persona: Persona) -> str:
    """The persona as lines of a prompt: Activities, Interests, Language, Orientations, and what is in mind."""
    language, bar = persona.language, persona.orientations.strictness
    wishes = [
        f"{'more' if wish.sign > 0 else 'less'} {ATTRIBUTE_WORDS[wish.attribute]}"
        for wish in persona.orientations.wishes
    ]
    lines = [
        f"Activity: {persona.activity}; {_ACTIVITIES[persona.activity]}.",
        f"Interests: {'; '.join(map(interest_words, persona.interests)) or 'none in particular'}.",
        f"Language: {language.density}, {language.style}, {language.tone}.",
        f"Orientation: {bar}, {_BARS[bar]}; of replies you want {', '.join(wishes) or 'nothing special'}.",
    ]
    if persona.target is not None:
        lines.append(mind_line(persona.target))
    return "\n".join(lines)


def mind_line(target: Target) -> str:
    """What a user has in mind, as a line of a prompt."""
    return f"In mind: {target.title} ({_facts(target.facts)}). Never write this title."


def talk_lines(talk: Sequence[tuple[str, str]]) -> list[str]:
    """The conversation as lines of a prompt, one a message."""
    return [f"{speaker}: {text}" for speaker, text in talk] or ["(Nothing has been said yet.)"]


def shown_lines(card: ItemCard | None) -> list[str]:
    """What is shown now as a line of a prompt; no line where nothing is."""
    return [] if card is None else [_one_line(f"{SHOWN}: {card.title}; {_facts(card.facts)}")]


def merged_prompt(context: TurnContext, item_word: str) -> list[Message]:
    """The one call of a turn in the merged form; of an opening where nothing has been said yet."""
    if not context.talk:
        return _prompt(wording.OPENING_BRIEF.format(item=item_word), context)
    return _prompt(wording.MERGED.format(item=item_word), context)


def selector_prompt(context: TurnContext, item_word: str) -> list[Message]:
    """What the user sets out to do next."""
    return _prompt(wording.SELECTOR.format(item=item_word), context)


def writer_prompt(context: TurnContext, intent: Intent | None, item_word: str) -> list[Message]:
    """What the user says with an intent; None for its first words."""
    return _prompt(f"{wording.WRITERS[intent]}\n\n{wording.WRITING}".format(item=item_word), context)


def recommendation_prompt(context: TurnContext, item_word: str) -> list[Message]:
    """How well the item fits."""
    return _prompt(wording.RECOMMENDATION.format(item=item_word), context)


def expression_prompt(context: TurnContext, item_word: str) -> list[Message]:
    """What the recommender's wording loses."""
    return _prompt(wording.EXPRESSION.format(item=item_word), context)


def action_prompt(context: TurnContext, reply: str, item_word: str) -> list[Message]:
    """How sensible the recommender's move was, knowing what the user said to it."""
    answered = context._replace(talk=(*context.talk, (YOU, _one_line(reply))))
    return _prompt(wording.ACTION.format(item=item_word), answered)


def again_prompt(prompt: Sequence[Message], reply: str, *, as_json: bool = True) -> list[Message]:
    """The same question after an answer that told the title.

    Args:
        prompt: What was asked.
        reply: The message that told it.
        as_json: Whether the message is to come as an object with the field `reply`, or alone.
    """
    form = "as JSON with the one field reply" if as_json else "the message alone"
    told = f"That message names the title you must never write. Write it again without it, {form}. It was: {reply}"
    content = f"{prompt[-1]['content']}\n{_one_line(told)}"
    return [*prompt[:-1], {"role": "user", "content": content}]


def _prompt(task: str, context: TurnContext) -> list[Message]:
    system = f"{task}\n\nWho you are\n{persona_block(context.persona)}"
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": "\n".join([*talk_lines(context.talk), *_state_lines(context)])},
    ]


def _state_lines(context: TurnContext) -> list[str]:
    lines = shown_lines(context.card)
    lines.append(f"{NEW}: {'; '.join(thing.text for thing in context.telling) or 'nothing new'}")
    lines.append(f"{LEFT}: {context.patience}")
    if context.lapse:
        lines.append("You are absent-minded now: you overlook part of what was said.")
    return lines


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _facts(facts: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in facts.items())
