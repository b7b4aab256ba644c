"""AILO: users with a persona who say at every turn how it met their expectation, with scores and reasons.

After Feng et al. (2025), "Expectation Confirmation Preference Optimization for Multi-Turn Conversational Recommendation
Agent", arXiv 2506.14302. Departures, each with its reason:

1. Every reply of the agent is rated, the last one too: a turn is rated when it is reacted to, not with the next one.
2. The five calls of a turn may be merged into one (`Form.MERGED`), whose fields stand in the order of cause and effect.
3. A message that tells the title in mind is asked for again, and then masked and marked; the published code drops the
   whole dialogue, which leaves the denominator to the users who kept the secret.
4. Users have patience, are absent-minded now and then, and tell of themselves bit by bit by a rule; the model is told
   what the rule says, and what it really told is read off its words.
5. A user sees the facts of the item that is shown, as people see a card, not the reply alone.
6. A dialogue succeeds when the user would take what is shown (a recommendation of 4 or 5), not only when the title in
   mind is named; whether there is such a title is up to the persona.
7. Personas may be found by rule in a log (`simulators.users.persona_building`), not only written from reviews.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from simulators.chat.model import ChatModel
from simulators.errors import PersonaError
from simulators.types import (
    DISSATISFIED,
    SUCCESS_LEVEL,
    Confirmation,
    Decision,
    Dialogue,
    Feedback,
    ItemCard,
    StopReason,
    Utterance,
)
from simulators.users.ailo_calls import AiloCalls, Answer
from simulators.users.ailo_prompts import RECOMMENDER, YOU, TurnContext, talk_of
from simulators.users.ailo_types import AiloConfig, Intent, MergedTurn
from simulators.users.disclosure import next_to_tell
from simulators.users.personas import Persona
from simulators.users.places import Place, place_draws, places_of
from simulators.users.title_guard import guarded, kept_secret, mask_title

LEVEL_OF_RECOMMENDATION = (0, 0, 1, 2, 3, 4)
"""Level of interest for each recommendation score: at 4, "you would take it", the item is accepted."""

_TELL, _LAPSE, _NOISE, _DIRECTION = range(311, 315)


class AiloUsers:
    """Personas who talk through a chat model. See `simulators.protocols.SimulatedUser`.

    Args:
        personas: The users; each is met by its `user`.
        chat: Finds intents, words and ratings; should be able to write JSON.
        config: How they are run.

    Raises:
        PersonaError: Two personas are of the same user.
    """

    def __init__(
        self, personas: Iterable[Persona], chat: ChatModel, config: AiloConfig | None = None
    ) -> None:
        people = list(personas)
        self._persona_of = {persona.user: persona for persona in people}
        self._config = config or AiloConfig()
        self._calls = AiloCalls(chat, self._config)
        if len(self._persona_of) < len(people):
            raise PersonaError(
                f"`personas` must be of different users; got {len(people)} of {len(self._persona_of)} users. "
                "Number them anew."
            )

    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        """See `SimulatedUser.open`.

        Raises:
            PersonaError: A user without a persona.
        """
        nothing = [None] * len(users)
        contexts = self._contexts([Dialogue(user) for user in users], nothing, nothing, seed)
        places = [Place(user, 0) for user in users]
        return self._guarded(contexts, self._calls.open(contexts, places, seed=seed), places, seed)

    def react(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Feedback]:
        """See `SimulatedUser.react`: one call for all dialogues, or five in sequence.

        A turn whose calls failed counts as ignored and rated 1, so that no mean rises by failures, and has no
        confirmation.
        """
        contexts = self._contexts(dialogues, cards, replies, seed)
        places = places_of(dialogues)
        answers = self._calls.react(contexts, places, seed=seed)
        said = self._guarded(contexts, answers, places, seed)
        noise = self._noise(places, seed)
        return [
            self._feedback(dialogue, answer.turn and _discreet(answer.turn, context), words, shift)
            for dialogue, context, answer, words, shift in zip(
                dialogues, contexts, answers, said, noise, strict=True
            )
        ]

    def decide(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Decision]:
        """See `SimulatedUser.decide`; costs as much as `react`, on whose words the action score depends.

        The utility is NaN: nobody knows it. So is the satisfaction where the calls failed, as no reply may be found
        better than one that nobody rated.
        """
        return [decided(reaction) for reaction in self.react(dialogues, cards, replies, seed=seed)]

    def _contexts(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard | None],
        replies: Sequence[Utterance | None],
        seed: int,
    ) -> list[TurnContext]:
        places = places_of(dialogues)
        draws = place_draws(seed, places, 2, _TELL)
        lapses = place_draws(seed, places, 1, _LAPSE)[:, 0] < self._config.lapse_rate
        return [
            self._context(dialogue, card, reply, draw, bool(lapse))
            for dialogue, card, reply, draw, lapse in zip(
                dialogues, cards, replies, draws.tolist(), lapses, strict=True
            )
        ]

    def _context(
        self,
        dialogue: Dialogue,
        card: ItemCard | None,
        reply: Utterance | None,
        draws: Sequence[float],
        lapse: bool,
    ) -> TurnContext:
        persona = self._persona(dialogue.user)
        talk = talk_of(dialogue, reply)
        own = [text for speaker, text in talk if speaker == YOU]
        left = persona.patience - _disappointments(dialogue)
        return TurnContext(persona, talk, card, next_to_tell(persona, own, draws), left, lapse and bool(talk))

    def _persona(self, user: int) -> Persona:
        persona = self._persona_of.get(user)
        if persona is None:
            raise PersonaError(f"`users` must have personas; got {user} without one. Add it to `personas`.")
        return persona

    def _guarded(
        self, contexts: Sequence[TurnContext], answers: Sequence[Answer], places: Sequence[Place], seed: int
    ) -> list[Utterance]:
        """The messages, without titles that must not be told."""
        titles = [_secret(context) for context in contexts]

        def say_again(rows: list[int]) -> list[Utterance]:
            chosen = [answers[i] for i in rows], [places[i] for i in rows]
            return [_uttered(answer) for answer in self._calls.say_again(*chosen, seed=seed)]

        return guarded([_uttered(answer) for answer in answers], titles, say_again)

    def _noise(self, places: Sequence[Place], seed: int) -> list[dict[str, int]]:
        """What is added to each score: 0, or 1 point up or down."""
        names = ("recommendation", "action", "expression")
        hit = place_draws(seed, places, len(names), _NOISE) < self._config.rating_noise
        up = place_draws(seed, places, len(names), _DIRECTION) < 0.5
        shifts = np.where(hit, np.where(up, 1, -1), 0)
        return [dict(zip(names, row, strict=True)) for row in shifts.tolist()]

    def _feedback(
        self, dialogue: Dialogue, turn: MergedTurn | None, words: Utterance, shift: Mapping[str, int]
    ) -> Feedback:
        if turn is None:
            return Feedback(0, 1.0, words, stop=StopReason.MODEL_FAILED)
        confirmation = confirm(turn, shift)
        # Noise is of the scores alone: what the user does must fit what it said.
        level = LEVEL_OF_RECOMMENDATION[turn.recommendation]
        satisfaction = satisfaction_of(confirmation, self._config.satisfaction_from)
        disappointments = _disappointments(dialogue) + (satisfaction <= DISSATISFIED)
        stop = None
        if level >= SUCCESS_LEVEL:
            stop = StopReason.ACCEPTED
        elif turn.intent is Intent.END or disappointments >= self._persona(dialogue.user).patience:
            stop = StopReason.OUT_OF_PATIENCE
        elif len(dialogue.turns) + 1 >= self._config.max_turns:
            stop = StopReason.MAX_TURNS
        return Feedback(level, satisfaction, words, stop=stop, confirmation=confirmation)


def decided(reaction: Feedback) -> Decision:
    """What a user decided who decides by reacting: without a known utility, and undecided where its model failed."""
    failed = reaction.stop is StopReason.MODEL_FAILED
    stars = float("nan") if failed else reaction.satisfaction
    return Decision(reaction.level, stars, reaction.complaint, float("nan"))


def confirm(turn: MergedTurn, shift: Mapping[str, int]) -> Confirmation:
    """The scores and reasons of a turn, each score moved by its shift and kept on its scale.

    Args:
        turn: What the model said.
        shift: Points to add to recommendation, action and expression; a recommendation of 0, for none, stays 0.
    """
    lost = {f"{name}_lost": getattr(turn, name) for name in ("flexibility", "coherence", "guidance")}
    made = turn.recommendation > 0
    scores = {
        "recommendation": _kept(turn.recommendation + shift["recommendation"], 1, 5) if made else 0,
        "action": _kept(turn.action + shift["action"], 1, 5),
        "expression": _kept(5 - sum(lost.values()) + shift["expression"], 0, 5),
        **lost,
    }
    reasons = {name: getattr(turn, f"{name}_reason") for name in ("recommendation", "action", "expression")}
    return Confirmation(scores, reasons, turn.intent.value)


def satisfaction_of(confirmation: Confirmation, names: Sequence[str]) -> float:
    """Mean of the named scores, 1 to 5; a recommendation that was not made is left out.

    Args:
        confirmation: The scores.
        names: Which of them count; where nothing is left, the expression alone does.
    """
    scores = confirmation.scores
    counted = [scores[name] for name in names if name != "recommendation" or scores[name] > 0]
    return max(1.0, float(np.mean(counted or [scores["expression"]])))


def _kept(score: int, low: int, high: int) -> int:
    return min(max(score, low), high)


def _disappointments(dialogue: Dialogue) -> int:
    return sum(turn.feedback.satisfaction <= DISSATISFIED for turn in dialogue.turns)


def _uttered(answer: Answer) -> Utterance:
    return Utterance(answer.text, answer.text, answer.failure)


def _discreet(turn: MergedTurn, context: TurnContext) -> MergedTurn:
    """The turn without its secret title in the reasons, which whoever learns from them reads."""
    title = _secret(context)
    if title is None:
        return turn
    reasons = ("recommendation_reason", "expression_reason", "action_reason")
    return turn.model_copy(update={name: mask_title(getattr(turn, name), title) for name in reasons})


def _secret(context: TurnContext) -> str | None:
    heard = [text for speaker, text in context.talk if speaker == RECOMMENDER]
    return kept_secret(context.persona.target, heard, context.card)
