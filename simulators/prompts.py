"""What the chat model is told on either side of the conversation: the recommender's prompt and the user's."""

from collections.abc import Collection, Mapping, Sequence

from simulators.grounding import render_card, slot_token
from simulators.types import ItemCard, Turn

Message = dict[str, str]

RECOMMENDER = "You recommend films. Say only what the card says."
REWRITER = (
    "You improve a recommender's reply. Keep its film, the exact title and what the card says; mend only what the user "
    "minded. Write the new reply and nothing else."
)
VIEWER = "You look for a film to watch. Answer in one to three short sentences."

LEVEL_WORDS = (
    "you do not want it",
    "you looked at it and are not sure",
    "you save it for later",
    "you will watch it",
    "you love it",
)
COMPLAINT_WORDS = {
    ("brevity", -1): "the reply was too long",
    ("brevity", 1): "the reply was too short",
    ("warmth", -1): "the reply was cold",
    ("warmth", 1): "the reply was too sweet",
    ("plainness", -1): "the words were too big",
    ("plainness", 1): "the words were too simple",
    ("reasons", -1): "it gave no reasons",
    ("reasons", 1): "it gave too many reasons",
    ("curiosity", -1): "it asked nothing",
    ("curiosity", 1): "it asked too much",
    ("enthusiasm", -1): "it sounded flat",
    ("enthusiasm", 1): "it was too excited",
}
"""What a user minds, by attribute and the sign of what was heard (1 = too much of it)."""


def recommender_prompt(
    history: Sequence[Turn], user_text: str, card: ItemCard, slots: Collection[str]
) -> list[Message]:
    """The conversation up to a reply: earlier turns with their cards, then the user's words with the card to use.

    Args:
        history: Earlier turns to be shown, oldest first.
        user_text: What the user said last, as the model's kind of text (raw for a model with slots).
        card: The film to recommend now.
        slots: Slot tokens of the model; empty for a model that copies facts from the card.
    """
    messages = [{"role": "system", "content": RECOMMENDER}]
    for turn in history:
        said, answered = (turn.user.raw, turn.reply.raw) if slots else (turn.user.text, turn.reply.text)
        messages += [_user(f"{said}\n{render_card(turn.card, slots)}"), _assistant(answered)]
    return [*messages, _user(f"{user_text}\n{render_card(card, slots)}")]


def viewer_opening_prompt(wish: Mapping[str, str], slots: Collection[str]) -> list[Message]:
    """What the user's side is told before its first words; `wish` maps genre and mood to words."""
    return [_viewer(wish, slots), _user("(Say what you look for.)")]


def viewer_reaction_prompt(
    wish: Mapping[str, str],
    reply: str,
    level: int,
    complaint: tuple[str, int] | None,
    *,
    goes_on: bool,
    slots: Collection[str],
) -> list[Message]:
    """What the user's side is told after a reply: the decision is made, the model finds the words.

    Args:
        wish: Genre and mood that the user looks for.
        reply: The recommender's reply, as the model's kind of text.
        level: Interest in the film, 0..4.
        complaint: Attribute that was off and the sign of what was heard, if any.
        goes_on: Whether the user asks for another film.
        slots: Slot tokens of the model; empty for one that writes facts by itself.
    """
    intent = [LEVEL_WORDS[level]]
    if complaint is not None:
        intent.append(COMPLAINT_WORDS[complaint])
    if goes_on:
        intent.append("ask for another film")
    return [_viewer(wish, slots), _user(f"{reply}\n({'; '.join(intent)})")]


def rewriting_prompt(prompt: Sequence[Message], turn: Turn, slots: Collection[str]) -> list[Message]:
    """What a rewriter is told: the conversation with its card, the reply, and why the user was not content.

    Args:
        prompt: The conversation that the reply answered.
        turn: The reply and how it was met.
        slots: Slot tokens of the rewriting model; empty for one that copies facts from the card.
    """
    reply = turn.reply.raw if slots else turn.reply.text
    spoken = [f"{message['role']}: {message['content']}" for message in prompt if message["role"] != "system"]
    told = "\n".join([*spoken, f"Reply: {reply}", f"The user minded: {'; '.join(reasons_of(turn))}."])
    return [{"role": "system", "content": REWRITER}, _user(told)]


def reasons_of(turn: Turn) -> list[str]:
    """Why the user was not content, in words, as far as the user says."""
    if turn.feedback.confirmation is not None and turn.feedback.confirmation.reasons:
        return list(turn.feedback.confirmation.reasons.values())
    if turn.feedback.complaint is not None:
        return [COMPLAINT_WORDS[turn.feedback.complaint]]
    return ["it did not please"]


def _viewer(wish: Mapping[str, str], slots: Collection[str]) -> Message:
    wanted = " ".join(slot_token(name) if slots else value for name, value in wish.items())
    return {"role": "system", "content": f"{VIEWER} You want: {wanted}"}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}
