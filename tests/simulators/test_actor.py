"""The actor: it judges by what the prompt says and by nothing else."""

import json

import pytest

from simulators.chat.structured import complete_json
from simulators.types import ItemCard
from simulators.users.ailo_prompts import TurnContext, merged_prompt, selector_prompt, writer_prompt
from simulators.users.ailo_types import (
    ActionRating,
    Intent,
    IntentChoice,
    MergedTurn,
    PlainReply,
    WrittenReply,
)
from simulators.users.disclosure import tellables
from simulators.users.personas import Persona
from tests.helpers.actor import Actor

PERSONA = Persona.model_validate(
    {
        "user": 0,
        "interests": [
            {"kind": "genre", "value": "comedy", "liking": 2},
            {"kind": "mood", "value": "dark", "liking": -1},
        ],
        "language": {"tone": "warm"},
        "orientations": {
            "wishes": [{"attribute": "reasons", "sign": 1}, {"attribute": "curiosity", "sign": -1}]
        },
    }
)
ASKED = ("You", "I want a film.")
SURE = Actor(noise=0.0)


def scene(reply: str, facts: dict[str, str], persona: Persona = PERSONA, patience: int = 3) -> TurnContext:
    card = ItemCard(0, "Heat Wave", facts)
    return TurnContext(
        persona, (ASKED, ("Recommender", reply)), card, tellables(persona)[:1], patience, False
    )


def judged(context: TurnContext) -> MergedTurn:
    found = complete_json(SURE, [merged_prompt(context, "film")], MergedTurn, seeds=[0])[0].value
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("facts", "fit"),
    [
        ({"genre": "comedy and crime"}, 3 + 2),
        ({"mood": "dark"}, 3 - 1),
        ({"genre": "comedy", "mood": "dark"}, 3 + 2 - 1),
        ({"genre": "crime"}, 3),
    ],
)
def test_fit_is_the_sum_of_likings_that_the_card_meets(facts: dict[str, str], fit: int) -> None:
    found = judged(scene("See Heat Wave.", facts))
    assert found.recommendation == fit
    assert (found.intent is Intent.END) == (fit >= 4)


def test_a_reply_that_names_no_item_recommends_none() -> None:
    assert judged(scene("What do you like?", {"genre": "comedy"})).recommendation == 0


def test_wishes_for_replies_cost_flexibility() -> None:
    both, one, none = (
        judged(scene(reply, {}))
        for reply in ("See Heat Wave. Good?", "See Heat Wave.", "See Heat Wave because it is short.")
    )
    assert (both.flexibility, one.flexibility, none.flexibility) == (2, 1, 0)
    assert (both.guidance, one.guidance, none.guidance) == (0, 1, 0)


def test_what_was_offered_before_costs_coherence() -> None:
    context = scene("Then see Heat Wave because.", {})
    again = context._replace(talk=(ASKED, ("Recommender", "See Heat Wave."), ASKED, *context.talk[1:]))
    assert (judged(context).coherence, judged(again).coherence) == (0, 2)


def test_it_says_what_it_is_told_to_tell_and_how_it_feels() -> None:
    assert judged(scene("See Heat Wave.", {})).reply == (
        "Thank you kindly. It is all right, but not quite it. I love comedy."
    )
    assert (
        judged(scene("See Heat Wave.", {"genre": "comedy"})).reply
        == "Thank you kindly. I will take that one."
    )
    leaving = judged(scene("See Heat Wave.", {"mood": "dark"}, patience=1))
    assert leaving.intent is Intent.END and "enough" in leaving.reply
    opening = TurnContext(PERSONA, (), None, tellables(PERSONA)[1:], 3, False)
    said = complete_json(SURE, [merged_prompt(opening, "film")], PlainReply, seeds=[0])[0].value
    assert said == PlainReply(reply="I am looking for something to see. I dislike dark.")


def test_questions_are_answered_where_there_is_something_to_tell() -> None:
    context = scene("Heat Wave? Old or new?", {})
    prompt = selector_prompt(context, "film")
    found = complete_json(SURE, [prompt], IntentChoice, seeds=[0])[0].value
    assert found is not None and found.intent is Intent.CLARIFY
    silent = selector_prompt(context._replace(telling=()), "film")
    found = complete_json(SURE, [silent], IntentChoice, seeds=[0])[0].value
    assert found is not None and found.intent is Intent.FEEDBACK


def test_what_is_in_mind_decides_where_something_is() -> None:
    target = {"title": "Heat Wave", "facts": {"genre": "crime", "mood": "dark"}}
    minded = Persona.model_validate({**PERSONA.model_dump(), "target": target})
    assert judged(scene("See Heat Wave.", {}, minded)).recommendation == 5
    other = {**target, "title": "Cold Wave"}
    minded = Persona.model_validate({**PERSONA.model_dump(), "target": other})
    near = judged(scene("See Heat Wave.", {"genre": "crime", "mood": "tender"}, minded))
    assert near.recommendation == 2


def test_answers_hold_the_fields_that_are_asked_for_and_plain_text_without_a_schema() -> None:
    prompt = writer_prompt(scene("See Heat Wave.", {}), Intent.FEEDBACK, "film")
    text = SURE.complete([prompt], seeds=[1], schema=WrittenReply.model_json_schema())[0].text
    assert list(json.loads(text)) == ["reply_reason", "reply"]
    assert SURE.complete([prompt], seeds=[1])[0].text == json.loads(text)["reply"]


def test_noise_follows_the_seed() -> None:
    prompts = [merged_prompt(scene("See Heat Wave.", {"genre": "crime"}), "film")] * 200
    noisy = Actor(noise=0.3)
    found = [p.value for p in complete_json(noisy, prompts, ActionRating, seeds=range(200))]
    assert found == [p.value for p in complete_json(noisy, prompts, ActionRating, seeds=range(200))]
    off = sum(rating is not None and rating.action != 3 for rating in found) / 200
    assert 0.2 < off < 0.5


def test_tokens_are_counted_by_the_given_rule() -> None:
    prompt = merged_prompt(scene("See Heat Wave.", {}), "film")
    counting = Actor(noise=0.0, count_tokens=lambda text: len(text.split()))
    row = counting.complete([prompt], seeds=[0])[0]
    assert row.prompt_tokens == sum(len(message["content"].split()) for message in prompt)
    assert row.completion_tokens == len(row.text.split())
