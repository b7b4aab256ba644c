"""The environment of dialogues, and the same as tools: Gymnasium's check, determinism, TRL's way of finding tools."""

import inspect
from functools import partial

import pytest
from gymnasium.utils.env_checker import check_env

from simulators.dialogue_env import NEUTRAL, FilmDialogueEnv, grammar_scale
from simulators.dialogue_tools import OVER, FilmDialogueTools
from simulators.errors import RolloutError
from simulators.types import StopReason, Utterance
from simulators.users.film_viewers import FilmViewers
from tests.helpers.talking import talking_world

WORLD, _, VIEWERS = talking_world()


def make() -> FilmDialogueEnv:
    return FilmDialogueEnv(WORLD, VIEWERS, max_length=400)


def talk(env: FilmDialogueEnv, seed: int, reply: str) -> list[tuple[str, float]]:
    heard = [(env.reset(seed=seed)[0], 0.0)]
    over = False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(reply)
        heard.append((observation, reward))
        over = terminated or truncated
    return heard


def test_passes_the_check_of_gymnasium() -> None:
    check_env(make(), skip_render_check=True)


def test_the_same_seed_and_words_bring_the_same_dialogue() -> None:
    assert talk(make(), 4, "Try <title>.") == talk(make(), 4, "Try <title>.")
    assert talk(make(), 4, "Try <title>.") != talk(make(), 5, "Try <title>.")


def test_offers_a_film_and_fills_its_slots() -> None:
    env = make()
    observation, info = env.reset(seed=1)
    title = WORLD.catalogue.card(info["item"]).title
    assert "\nCard: " in observation and title in observation
    env.step("Try <title>, it is good.")
    assert env.dialogue.turns[0].reply == Utterance("Try <title>, it is good.", f"Try {title}, it is good.")
    assert env.dialogue.turns[0].card.item == info["item"]


def test_rewards_and_ends_are_the_users() -> None:
    ends = set()
    env = make()
    for seed in range(25):
        env.reset(seed=seed)
        while True:
            _, reward, terminated, truncated, info = env.step("Try <title>.")
            assert (
                reward == info["satisfaction"] - NEUTRAL == env.dialogue.turns[-1].feedback.satisfaction - 3
            )
            if terminated or truncated:
                break
        assert truncated == (info["stop"] is StopReason.MAX_TURNS) and terminated != truncated
        ends.add(info["stop"])
    assert ends >= {StopReason.ACCEPTED, StopReason.OUT_OF_PATIENCE}


def test_refuses_to_go_on_after_the_end_and_unknown_users() -> None:
    env = make()
    with pytest.raises(RolloutError, match="call `reset`"):
        env.step("Hello.")
    with pytest.raises(RolloutError, match=r"0\.\.59; got 60"):
        env.reset(options={"user": 60})


class _Mute(FilmViewers):
    def __init__(self) -> None:
        vars(self).update(vars(VIEWERS))

    def open(self, users: object, *, seed: int) -> list[Utterance]:
        return [Utterance("", "", "no answer came")]


def test_a_user_without_words_is_an_error() -> None:
    with pytest.raises(RolloutError, match="no answer came"):
        FilmDialogueEnv(WORLD, _Mute()).reset(seed=0)


def test_the_scale_is_that_of_varied_replies() -> None:
    assert (grammar_scale().std > 0).all() and grammar_scale() is grammar_scale()


def test_tools_are_found_and_described_as_trl_does() -> None:
    chat_template_utils = pytest.importorskip("transformers.utils.chat_template_utils")
    tools = partial(FilmDialogueTools, make)()
    found = [name for name, _ in inspect.getmembers(type(tools), inspect.isfunction) if name[0] != "_"]
    assert sorted(found) == ["get_reward", "recommend", "reset"]
    schema = chat_template_utils.get_json_schema(tools.recommend)["function"]
    assert schema["name"] == "recommend" and "hear the answer" in schema["description"]
    assert schema["parameters"]["required"] == ["reply"]
    assert "name the film" in schema["parameters"]["properties"]["reply"]["description"]


def test_tools_hold_the_dialogue_of_the_environment() -> None:
    heard = talk(make(), 9, "Try <title>.")
    tools = FilmDialogueTools(make)
    for _ in range(2):  # instances are used again and again
        assert tools.reset(seed=9, prompt="ignored") == heard[0][0]
        answers = [tools.recommend("Try <title>.") for _ in heard[1:]]
        assert answers[:-1] == [words for words, _ in heard[1:-1]]
        assert answers[-1].endswith(OVER) and heard[-1][0] in answers[-1]
        assert tools.get_reward() == sum(reward for _, reward in heard)
        assert tools.recommend("More?") == OVER
        assert tools.get_reward() == sum(reward for _, reward in heard)
