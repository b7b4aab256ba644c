from dataclasses import replace
from pathlib import Path

import pytest
import torch

from persona.errors import DataError, ModelError, ShapeError
from persona.policy import ConditionedPolicy, LanguageModel
from persona.policy.sampling import Sampling
from persona.profiles.few_shot import FewShotProfile, Reference, described, description_request
from persona.profiles.shots import (
    Shot,
    ShotFormat,
    describe_choices,
    lay_out_shots,
    place_prompt,
    render_shot,
)
from persona.types import Conversation
from tests.helpers.tiny_models import tiny_language_model

SYSTEM = {"role": "system", "content": "You recommend films."}
ASKED: Conversation = [SYSTEM, {"role": "user", "content": "something short tonight"}]
SHOTS = [
    Shot([{"role": "user", "content": "What film?"}], "warm and slow", "yes no"),
    Shot([{"role": "user", "content": "more like it?"}], "yes", "What a wonderful story!"),
    Shot([{"role": "user", "content": "You may?"}], "I would watch something short.", "because"),
]
APART, TEXT = ShotFormat(last_tokens=None), ShotFormat(in_order=True)


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    return tiny_language_model()


def changed_policy(base: LanguageModel) -> ConditionedPolicy:
    """A policy whose LoRA differs from the base model's behaviour."""
    policy = ConditionedPolicy.build(base, 0, 0, rank=2, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.adapter_parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


def test_a_shot_is_one_exchange() -> None:
    assert render_shot(SHOTS[0], ShotFormat(question=True)) == [
        {"role": "user", "content": "What film?\nNot: yes no"},
        {"role": "assistant", "content": "warm and slow"},
    ]
    assert render_shot(SHOTS[0], ShotFormat(mark="Worse: "))[0]["content"] == "Worse: yes no"


def test_choices_are_put_into_words_by_what_differs_most_surely() -> None:
    plain = "It is a film."
    warm_once = [Shot([], f"Hello friend. {plain}", f"Wow! {plain}"), Shot([], f"Glad. {plain}", plain)]
    assert describe_choices(warm_once, most=1) == "likes warmth"
    assert describe_choices([Shot([], "Is it?", "It is.")], most=3) == "likes curiosity"
    assert describe_choices([Shot([], "It is.", "Is it?")], most=3) == "minds curiosity"
    assert describe_choices([]) == describe_choices([Shot([], plain, plain)]) == "likes what most like"


def test_shots_go_through_the_chat_template(base: LanguageModel) -> None:
    layout = lay_out_shots(base, SHOTS, APART)
    texts = [base.tokenizer.decode(row) for row in layout.rows]
    assert texts[0] == "<|user|>Not: yes no<|end|><|assistant|>warm and slow<|end|>"
    assert len(layout.orders) == 1 and layout.orders[0].windows == (0, 1, 2)


def test_shots_in_one_text_read_exactly_as_one_conversation(base: LanguageModel) -> None:
    profile = FewShotProfile(changed_policy(base), TEXT, reference=Reference.NOTHING)
    exchanges = [message for shot in SHOTS for message in render_shot(shot, TEXT)]
    whole = [SYSTEM, *exchanges, ASKED[1]]
    reading = profile.read(SHOTS, system=SYSTEM["content"])
    rewards = profile.rewards(reading, [ASKED], [["yes", "I would watch more like it"]])
    with torch.no_grad():
        expected = profile.policy.log_probs([whole, whole], ["yes", "I would watch more like it"])
    torch.testing.assert_close(rewards[0], expected, rtol=1e-4, atol=1e-4)
    layout = lay_out_shots(base, SHOTS, TEXT, system=SYSTEM["content"])
    placed = place_prompt(base, layout, layout.orders[0], ASKED)
    assert [*layout.rows[0], *placed.prompt.ids] == base.encode(whole)


def test_without_shots_the_policy_is_asked_as_it_is(base: LanguageModel) -> None:
    policy = changed_policy(base)
    with torch.no_grad():
        expected = policy.log_probs([ASKED], ["yes"]) - policy.reference_log_probs(
            policy.encode_replies([ASKED], ["yes"])
        ).sum(1)
    for shot_format in (APART, TEXT):
        for reference in (Reference.SAME_SHOTS, Reference.NO_SHOTS):
            profile = FewShotProfile(policy, shot_format, reference=reference)
            reward = profile.rewards(profile.read([]), [ASKED], [["yes"]])
            torch.testing.assert_close(reward[0], expected, rtol=1e-4, atol=1e-4)


def test_a_new_policy_rewards_nothing_against_a_reference_with_the_same_shots(base: LanguageModel) -> None:
    policy = ConditionedPolicy.build(base, 0, 0, rank=2, seed=0)
    for shot_format in (APART, TEXT, ShotFormat(last_tokens=2)):
        profile = FewShotProfile(policy, shot_format)
        reading = profile.read(SHOTS)
        assert profile.rewards(reading, [ASKED], [["yes", "no"]]).abs().max() < 1e-4
        untrained = FewShotProfile(policy, shot_format, reference=Reference.NO_SHOTS)
        assert untrained.rewards(reading, [ASKED], [["yes", "no"]]).abs().min() > 1e-3


def test_swapped_replies_turn_a_probability_round(base: LanguageModel) -> None:
    profile = FewShotProfile(changed_policy(base), APART)
    forth, back = (profile.score(SHOTS, ASKED, *pair) for pair in (("yes", "no"), ("no", "yes")))
    assert forth + back == pytest.approx(1.0, abs=1e-5) and abs(forth - 0.5) > 1e-4


def test_the_score_is_the_scaled_difference_of_rewards(base: LanguageModel) -> None:
    profile = FewShotProfile(changed_policy(base), APART, scale=0.25)
    first, second = profile.rewards(profile.read(SHOTS), [ASKED], [["yes", "no"]])[0]
    expected = torch.sigmoid(0.25 * (first - second)).item()
    assert profile.score(SHOTS, ASKED, "yes", "no") == pytest.approx(expected)


def test_the_order_of_shots_matters_in_a_text_and_not_apart(base: LanguageModel) -> None:
    policy = changed_policy(base)
    turned = [SHOTS[2], SHOTS[0], SHOTS[1]]
    apart, text = (FewShotProfile(policy, shape, scale=5.0) for shape in (APART, TEXT))
    pair = (ASKED, "yes", "I would watch")
    assert apart.score(turned, *pair) == pytest.approx(apart.score(SHOTS, *pair), abs=1e-5)
    assert abs(text.score(turned, *pair) - text.score(SHOTS, *pair)) > 1e-3


def test_all_orders_of_two_shots_average_to_the_same(base: LanguageModel) -> None:
    profile = FewShotProfile(changed_policy(base), TEXT, scale=5.0, orders=2)
    pair = (ASKED, "yes", "I would watch")
    assert profile.score(SHOTS[:2], *pair) == pytest.approx(profile.score(SHOTS[1::-1], *pair), abs=1e-5)
    reading = profile.read(SHOTS[:2])
    assert len(reading.layout.orders) == 2


def test_a_reading_serves_many_prompts(base: LanguageModel) -> None:
    profile = FewShotProfile(changed_policy(base), ShotFormat(last_tokens=3), scale=1.0)
    other: Conversation = [{"role": "user", "content": "What a wonderful story! more?"}]
    reading = profile.read(SHOTS)
    together = profile.scores(reading, [ASKED, other], ["yes", "no"], ["warm", "slow"])
    alone = [profile.score(SHOTS, ASKED, "yes", "warm"), profile.score(SHOTS, other, "no", "slow")]
    torch.testing.assert_close(together, torch.tensor(alone), rtol=1e-4, atol=1e-4)
    assert profile.scores(reading, [], [], []).shape == (0,)


def test_shots_that_do_not_fit_go_and_the_question_stays(base: LanguageModel) -> None:
    long = Shot(ASKED, "story " * 60, "no")
    assert lay_out_shots(base, [long, *SHOTS], ShotFormat(room=64)).orders[0].windows == (0, 1, 2)
    kept = lay_out_shots(base, SHOTS, TEXT.model_copy(update={"room": 60}))
    newest = lay_out_shots(base, SHOTS[1:], TEXT)
    assert kept.rows == newest.rows
    assert lay_out_shots(base, SHOTS, TEXT.model_copy(update={"room": 8})).rows == ()
    narrow = replace(base, window=80)
    layout = lay_out_shots(narrow, SHOTS, ShotFormat(room=64))
    placed = place_prompt(narrow, layout, layout.orders[0], ASKED, ["yes"])
    assert placed.prompt.windows == () and placed.prompt.start == 0
    assert list(placed.prompt.ids) == base.encode(ASKED)


def test_only_the_newest_shots_are_read(base: LanguageModel) -> None:
    newest = lay_out_shots(base, SHOTS, ShotFormat(most=2))
    assert newest.rows == lay_out_shots(base, SHOTS[1:], ShotFormat()).rows
    assert lay_out_shots(base, SHOTS, ShotFormat(most=0)).rows == ()


def test_a_question_too_long_for_the_window_is_refused(base: LanguageModel) -> None:
    narrow = replace(base, window=12)
    layout = lay_out_shots(base, SHOTS, ShotFormat())
    with pytest.raises(ModelError, match="must fit the window of 12 tokens"):
        place_prompt(narrow, layout, layout.orders[0], [ASKED[1]], ["yes"])


def test_a_template_that_marks_the_last_message_cannot_hold_shots_in_one_text() -> None:
    fickle = tiny_language_model(
        chat_template="{% if messages[-1]['role'] == 'user' %}?{% endif %}"
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    layout = lay_out_shots(fickle, SHOTS, TEXT)
    with pytest.raises(ModelError, match="render shots the same whatever follows; that of 'tiny' does not"):
        place_prompt(fickle, layout, layout.orders[0], ASKED)


def test_replies_are_written_after_the_shots(base: LanguageModel) -> None:
    profile = FewShotProfile(changed_policy(base), TEXT)
    exchanges = [message for shot in SHOTS for message in render_shot(shot, TEXT)]
    whole = [SYSTEM, *exchanges, ASKED[1]]
    expected = profile.policy.generate([whole], seeds=[5], max_new_tokens=8)
    found = profile.generate(SHOTS, [ASKED], seeds=[5], sampling=Sampling(8))
    assert found == expected
    known = profile.generate(
        profile.read(SHOTS, system=SYSTEM["content"]), [ASKED], seeds=[5], sampling=Sampling(8)
    )
    assert known == found


def test_slots_can_be_banned(base: LanguageModel) -> None:
    profile = FewShotProfile(changed_policy(base), APART)
    replies = profile.generate(
        SHOTS, [ASKED] * 6, seeds=range(6), sampling=Sampling(12), banned=[base.slots] * 6
    )
    assert not any(slot in reply for reply in replies for slot in base.slots)


def test_a_user_is_described_before_the_answer(base: LanguageModel) -> None:
    profile = FewShotProfile(changed_policy(base), APART)
    words = profile.describe(SHOTS, seed=0, sampling=Sampling(6))
    assert words == profile.generate(SHOTS, [description_request()], seeds=[0], sampling=Sampling(6))[0]
    told = described(ASKED, "likes it short")
    assert told[0] == {"role": "system", "content": "You recommend films.\nThe user: likes it short"}
    assert described(ASKED, None) is ASKED


def test_a_profile_comes_back_as_it_was_saved(base: LanguageModel, tmp_path: Path) -> None:
    profile = FewShotProfile(
        changed_policy(base), ShotFormat(last_tokens=3), reference=Reference.NO_SHOTS, scale=0.7
    )
    profile.save(tmp_path)
    again = FewShotProfile.load(tmp_path, base)
    assert (again.shot_format, again.reference, again.scale, again.orders) == (
        profile.shot_format,
        Reference.NO_SHOTS,
        0.7,
        1,
    )
    pair = (SHOTS, ASKED, "yes", "no")
    assert again.score(*pair) == pytest.approx(profile.score(*pair), abs=1e-6)


def test_faults_are_named(base: LanguageModel) -> None:
    policy = ConditionedPolicy.build(base, 0, 0, rank=2, seed=0)
    with pytest.raises(DataError, match=r"positive and `orders` at least 1; got 0\.0 and 1"):
        FewShotProfile(policy, APART, scale=0.0)
    with pytest.raises(DataError, match=r"got 0\.1 and 0"):
        FewShotProfile(policy, APART, orders=0)
    profile = FewShotProfile(policy, APART)
    with pytest.raises(ShapeError, match=r"each of the 1 conversations; got 1 entries of \[\] replies|got 2"):
        profile.rewards(profile.read([]), [ASKED], [["yes"], ["no"]])
    with pytest.raises(ShapeError, match=r"got 2 entries of \[1, 2\] replies"):
        profile.rewards(profile.read([]), [ASKED, ASKED], [["yes"], ["no", "yes"]])
