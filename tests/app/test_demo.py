import html
import socket
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from app.chat import chat
from app.demo.handlers import SLIDER_INFO, Demo, Person
from app.demo.interface import build_interface
from app.demo.plots import attribute_bars, belief_plot, latent_plot
from app.demo.server import launch, start
from app.demo.teaching import Belief, Lesson, Teacher, describe
from app.errors import ConfigError, StoreError, TalkError
from app.talk import Talk
from persona.rewards.attributes import ATTRIBUTES
from tests.helpers.scripted_run import ScriptedRun, attribute_profile, scripted_pool

ZEROS = (0.0,) * len(ATTRIBUTES)
POOL = scripted_pool(ScriptedRun().films)


@pytest.fixture(scope="module")
def demo() -> Demo:
    return Demo(ScriptedRun())


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(POOL, attribute_profile())


def person(demo: Demo, brevity: float = 0.0) -> Person:
    return Person(demo.begin_lesson(), False, (brevity, *ZEROS[1:]))


def teach_brevity(teacher: Teacher, picks: int) -> Lesson:
    """A person who always takes the shorter reply."""
    lesson = teacher.begin()
    for _ in range(picks):
        shorter = int(np.argmax(POOL.attributes[list(lesson.offer), 0]))
        lesson = teacher.pick(lesson, shorter)
    return lesson


def test_sliders_are_those_of_the_attributes() -> None:
    assert tuple(SLIDER_INFO) == ATTRIBUTES


def test_answer_comes_with_card_average_reply_and_plot(demo: Demo) -> None:
    view = demo.send("Something good", demo.begin_talk(), person(demo, brevity=1.0))
    last = view.talk.last
    assert last is not None
    assert [message["content"] for message in view.messages] == ["Something good", last.reply.text]
    assert html.escape(last.card.title) in view.card and last.card.facts["year"] in view.card
    assert html.escape(last.average.text) in view.average
    own, average = (list(bars.x) for bars in view.figure.data)
    assert own[0] > average[0]


def test_slider_replaces_the_reply_and_keeps_question_film_and_average_reply(demo: Demo) -> None:
    asked = demo.send("Something good", demo.begin_talk(), person(demo, brevity=1.0))
    moved = demo.reword(asked.talk, person(demo, brevity=-1.0))
    assert moved.messages[0] == asked.messages[0] and moved.messages[1] != asked.messages[1]
    assert (moved.card, moved.average) == (asked.card, asked.average)


def test_average_reply_says_when_it_is_the_same(demo: Demo) -> None:
    assert "same as yours" in demo.send("Something good", demo.begin_talk(), person(demo)).average


def test_card_shows_that_the_film_is_liked(demo: Demo) -> None:
    asked = demo.send("Something good", demo.begin_talk(), person(demo))
    assert "♥" not in asked.card and "♥" in demo.like(asked.talk).card


def test_another_film_answers_the_same_question(demo: Demo) -> None:
    asked = demo.send("Something good", demo.begin_talk(), person(demo))
    other = demo.another_film(asked.talk, person(demo))
    assert other.messages[0] == asked.messages[0] and other.card != asked.card


def test_moving_a_slider_before_the_first_question_shows_the_empty_page(demo: Demo) -> None:
    view = demo.reword(demo.begin_talk(), person(demo, brevity=1.0))
    assert view.messages == [] and view.talk == Talk()


def test_words_of_a_person_cannot_become_markup() -> None:
    demo = Demo(ScriptedRun(title="<script>&"))
    view = demo.send("Something good", demo.begin_talk(), person(demo))
    assert "<script>" not in view.card + view.average + demo.show_lesson(demo.begin_lesson()).question
    assert "&lt;script&gt;&amp;" in view.card


def test_two_people_do_not_meet(demo: Demo) -> None:
    first = demo.send("Something good", demo.begin_talk(), person(demo))
    second = demo.send("Something else", demo.begin_talk(), person(demo, brevity=1.0))
    assert len(first.talk.exchanges) == len(second.talk.exchanges) == 1
    assert len(demo.pick(demo.begin_lesson(), 0).lesson.picks) == 1
    assert demo.begin_lesson().picks == () and demo.begin_talk() == Talk()


def test_what_was_learned_is_used_on_demand(demo: Demo) -> None:
    lesson = teach_brevity(Teacher(POOL, attribute_profile()), 12)
    usual = demo.send("Something good", demo.begin_talk(), Person(lesson, False, ZEROS))
    learned = demo.reword(usual.talk, Person(lesson, True, ZEROS))
    assert len(learned.messages[1]["content"]) < len(usual.messages[1]["content"])


def test_nothing_is_known_before_the_first_choice(teacher: Teacher) -> None:
    posterior = teacher.posterior(teacher.begin())
    assert not posterior.mean.any()
    np.testing.assert_allclose(posterior.covariance[0].numpy(), np.eye(6), atol=1e-6)
    belief = teacher.belief(teacher.begin())
    np.testing.assert_allclose(belief.mean, 0.0, atol=1e-9)
    # The latent is the taste for the attributes, so the regression on them must give the prior back.
    np.testing.assert_allclose(belief.std, 1.0, atol=1e-6)
    assert "average user" in describe(belief, 0)


def test_belief_is_the_posterior_where_the_latent_is_the_attributes(teacher: Teacher) -> None:
    lesson = teach_brevity(teacher, 5)
    posterior, belief = teacher.posterior(lesson), teacher.belief(lesson)
    np.testing.assert_allclose(belief.mean, posterior.mean[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(belief.std**2, posterior.covariance[0].diagonal().numpy(), atol=1e-5)


def test_choices_of_shorter_replies_move_the_belief_to_brevity(teacher: Teacher) -> None:
    few, many = (teacher.belief(teach_brevity(teacher, count)) for count in (2, 12))
    assert 0 < few.mean[0] < many.mean[0]
    assert many.std[0] < few.std[0] < 1.0
    assert np.argmax(many.mean) == 0
    assert "**shorter replies**" in describe(many, 12)


def test_opposite_choice_moves_the_posterior_the_opposite_way(teacher: Teacher) -> None:
    begun = teacher.begin()
    one, other = (teacher.posterior(teacher.pick(begun, side)).mean for side in (0, 1))
    np.testing.assert_allclose(one.numpy(), -other.numpy(), atol=1e-5)


def test_undo_offers_the_last_choice_again(teacher: Teacher) -> None:
    first = teacher.begin()
    second = teacher.pick(first, 1)
    assert teacher.undo(second) == first
    assert teacher.pick(teacher.undo(second), 1) == second


def test_undo_without_a_choice_is_refused(teacher: Teacher) -> None:
    with pytest.raises(TalkError, match="must be a choice to take back; got none yet"):
        teacher.undo(teacher.begin())


def test_skip_offers_others_and_teaches_nothing(teacher: Teacher) -> None:
    skipped = teacher.skip(teacher.begin())
    assert skipped.offer != teacher.begin().offer and skipped.picks == ()


def test_offers_are_different_replies_to_one_question(teacher: Teacher) -> None:
    lesson = teacher.begin()
    for _ in range(10):
        first, second = lesson.offer
        assert POOL.prompt_of[first] == POOL.prompt_of[second]
        assert POOL.replies[first].text != POOL.replies[second].text
        lesson = teacher.pick(lesson, 0)


def test_offer_tells_more_than_chance(teacher: Teacher) -> None:
    lesson = teach_brevity(teacher, 3)
    informed = teacher.belief(teacher.pick(lesson, 0)).std
    rng = np.random.default_rng(0)
    pairs = [6 * rng.integers(40) + rng.choice(6, 2, replace=False) for _ in range(30)]
    random = [teacher.belief(teacher.pick(_offering(lesson, pair), 0)).std for pair in pairs]
    assert (informed**2).sum() < np.mean([(std**2).sum() for std in random])


def _offering(lesson: Lesson, pair: np.ndarray) -> Lesson:
    return Lesson(lesson.picks, lesson.offer._replace(first=int(pair[0]), second=int(pair[1])))


def test_description_follows_the_signs_and_leaves_the_unsure_open() -> None:
    belief = Belief(np.array([-2.0, 1.0, 0.0, 0.0, 0.0, 0.1]), np.ones(6))
    said = describe(belief, 1)
    assert said.startswith(
        "After 1 choice you seem to want **longer replies** (98% sure), **warmer words** (84% sure)"
    )
    assert "Still open: plainness, reasons, curiosity, enthusiasm." in said
    assert (
        describe(Belief(np.zeros(6), np.ones(6)), 3)
        == "After 3 choices nothing is sure yet. A few more will tell."
    )


def test_plots_show_what_they_are_given(teacher: Teacher) -> None:
    bars = attribute_bars(np.arange(12.0).reshape(2, 6))
    assert [list(trace.x) for trace in bars.data] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    belief = Belief(np.linspace(-1, 1, 6), np.full(6, 0.5))
    (points,) = belief_plot(belief).data
    assert list(points.y) == list(ATTRIBUTES)
    np.testing.assert_allclose(points.x, belief.mean)
    np.testing.assert_allclose(points.error_x.array, 0.98)
    (latent,) = latent_plot(teacher.posterior(teacher.begin())).data
    assert list(latent.y) == ["z1", "z2", "z3", "z4", "z5", "z6"]


def test_page_is_built_over_any_run(demo: Demo) -> None:
    page = build_interface(demo)
    assert isinstance(page, gr.Blocks) and not page.analytics_enabled
    queues = {fn.concurrency_id: fn.concurrency_limit for fn in page.fns.values()}
    assert queues["model"] == 1 and queues["quick"] == 4
    slider = next(fn for fn in page.fns.values() if ("release" in {event for _, event in fn.targets}))
    assert slider.trigger_mode == "always_last" and len(slider.targets) >= len(ATTRIBUTES)


def test_page_tells_errors_in_one_sentence(demo: Demo) -> None:
    page = build_interface(demo)
    send = next(fn for fn in page.fns.values() if "submit" in {event for _, event in fn.targets})
    assert send.fn is not None
    with pytest.raises(gr.Error, match="must hold words; got none"):
        send.fn("  ", demo.begin_talk(), demo.begin_lesson(), False, *ZEROS)


def test_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"got 127.0.0.1 and {port} "):
            start(tmp_path, port=port)


def test_address_is_told_and_the_demo_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[bool] = []
    page = SimpleNamespace(block_thread=lambda: waited.append(True))
    monkeypatch.setattr(
        "app.demo.server.start", lambda run, host, port, agent: (page, f"http://{host}:{port}/")
    )
    launch(None, port=9)
    assert "http://127.0.0.1:9/" in capsys.readouterr().out and waited == [True]


def test_the_agent_that_is_named_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[Path, str]] = []

    def spy(folder: Path, agent: str) -> None:
        opened.append((folder, agent))
        raise StoreError("seen")

    monkeypatch.setattr("app.trained.TrainedRun.open", spy)
    with pytest.raises(StoreError, match="seen"):
        start(tmp_path, port=0, agent="taught")
    with pytest.raises(StoreError, match="seen"):
        chat(tmp_path, agent="taught")
    assert opened == [(tmp_path, "taught")] * 2


def test_run_is_checked_before_anything_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match=r"must hold manifest\.json"):
        start(tmp_path, port=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="or lie in runs/; got none"):
        start(None, port=0)
