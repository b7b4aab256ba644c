import pytest

from app.errors import TalkError
from app.talk import Talk, another_film, like, reword, say
from tests.helpers.scripted_run import ScriptedRun


@pytest.fixture(scope="module")
def trained() -> ScriptedRun:
    return ScriptedRun()


def words(text: str) -> int:
    return len(text.split())


def test_reply_names_the_film_of_its_card(trained: ScriptedRun) -> None:
    last = say(trained, Talk(), " Something \n good ", trained.condition({})).last
    assert last is not None
    assert last.said.text == "Something good"
    assert last.card.title in last.reply.text


def test_absent_condition_is_the_average_user(trained: ScriptedRun) -> None:
    last = say(trained, Talk(), "Something good", trained.condition({})).last
    assert last is not None and last.reply == last.average


def test_genre_named_last_restricts_the_films(trained: ScriptedRun) -> None:
    first, second = trained.films.genres[:2]
    talk = say(trained, Talk(), f"A {first} film", trained.condition({}))
    talk = say(trained, talk, f"No, {second} please", trained.condition({}))
    assert trained.films.has_genre(first)[talk.exchanges[0].card.item]
    assert trained.films.has_genre(second)[talk.exchanges[1].card.item]


def test_reword_changes_the_wording_alone(trained: ScriptedRun) -> None:
    talk = say(trained, Talk(), "Something good", trained.condition({}))
    short = reword(trained, talk, trained.condition({"brevity": 1.0})).last
    long = reword(trained, talk, trained.condition({"brevity": -1.0})).last
    assert talk.last is not None and short is not None and long is not None
    assert short.card == long.card == talk.last.card
    assert words(short.reply.text) < words(talk.last.reply.text) < words(long.reply.text)
    assert short.average == long.average == talk.last.reply


def test_reword_before_the_first_question_changes_nothing(trained: ScriptedRun) -> None:
    assert reword(trained, Talk(), trained.condition({"warmth": 1.0})) == Talk()


def test_no_film_comes_twice(trained: ScriptedRun) -> None:
    condition = trained.condition({})
    talk = say(trained, Talk(), "Something good", condition)
    seen = [talk.exchanges[-1].card.item]
    for _ in range(3):
        talk = another_film(trained, talk, condition)
        seen.append(talk.exchanges[-1].card.item)
        talk = say(trained, talk, "And then?", condition)
        seen.append(talk.exchanges[-1].card.item)
    assert len(set(seen)) == len(seen)
    assert len(talk.exchanges) == 4


def test_passed_film_is_remembered_as_ignored_and_liked_one_as_loved(trained: ScriptedRun) -> None:
    condition = trained.condition({})
    talk = say(trained, Talk(), "Something good", condition)
    passed = talk.exchanges[-1].card.item
    talk = like(another_film(trained, talk, condition))
    liked = talk.exchanges[-1].card.item
    assert talk.met == {passed: 0, liked: 4}
    assert another_film(trained, talk, condition).met[liked] == 4


def test_conversation_is_not_changed_in_place(trained: ScriptedRun) -> None:
    talk = say(trained, Talk(), "Something good", trained.condition({}))
    like(talk)
    another_film(trained, talk, trained.condition({}))
    assert talk.met == {} and len(talk.exchanges) == 1


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_message_is_refused(trained: ScriptedRun, text: str) -> None:
    with pytest.raises(TalkError, match="must hold words; got none"):
        say(trained, Talk(), text, trained.condition({}))


def test_liking_and_passing_on_need_a_film(trained: ScriptedRun) -> None:
    with pytest.raises(TalkError, match="must have been recommended first; got no question yet"):
        like(Talk())
    with pytest.raises(TalkError, match="must have been recommended first"):
        another_film(trained, Talk(), trained.condition({}))


def test_catalogue_that_is_used_up_is_told() -> None:
    trained = ScriptedRun()
    with pytest.raises(TalkError, match="got all 60 met"):
        say(trained, Talk(met=dict.fromkeys(range(60), 0)), "Something good", trained.condition({}))
