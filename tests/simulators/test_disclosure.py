"""What users tell of themselves, bit by bit."""

from simulators.users.disclosure import next_to_tell, tellables, told
from simulators.users.personas import Interest, Persona, Target


def persona(**more: object) -> Persona:
    likings = {"comedy": 2, "western": 1, "dark": -1, "art": 1}
    interests = [{"kind": "genre", "value": value, "liking": liking} for value, liking in likings.items()]
    return Persona.model_validate({"user": 0, "interests": interests, **more})


TARGET = Target(title="Silver Harbour", facts={"genre": "crime and drama", "plot": "a baker", "year": "1994"})


def test_what_was_told_is_read_from_the_words() -> None:
    assert told(persona(), ["Any good Comedies?", "Westerns are fine.", "Start."]) == {0, 1}
    assert told(persona(), []) == frozenset()
    named = Target(title="X", facts={"director": "Ann Kelly", "mood": "gray"})
    both = {4, 5}
    assert told(persona(target=named), ["Ann Kellys are fine.", "No grays."]) == both


def test_a_target_is_told_in_parts_and_never_by_its_title_or_plot() -> None:
    things = tellables(persona(target=TARGET))[4:]
    assert [thing.value for thing in things] == ["crime", "drama", "1994"]
    assert things[0].text == "crime (genre, in mind)"
    assert told(persona(target=TARGET), ["A drama from 1994."]) == {5, 6}


def test_the_first_message_tells_what_is_liked() -> None:
    firsts = {next_to_tell(persona(), [], [draw / 20, 0.0]) for draw in range(20)}
    assert {thing.value for (thing,) in firsts} == {"comedy", "western", "art"}
    gloomy = Persona(user=0, interests=(Interest(kind="mood", value="dark", liking=-2),))
    assert [thing.text for thing in next_to_tell(gloomy, [], [0.5, 0.5])] == ["dark (mood, hated)"]


def test_nothing_is_told_twice_until_all_is_told() -> None:
    said: list[str] = []
    for _ in range(4):
        (thing,) = next_to_tell(persona(), said, [0.99, 0.0])
        assert thing.value not in said
        said.append(thing.value)
    assert next_to_tell(persona(), said, [0.99, 0.0]) == ()


def test_who_is_in_a_hurry_tells_two_things_at_a_time() -> None:
    pair = next_to_tell(persona(activity="efficiency-seeking"), ["Hello."], [0.0, 0.0])
    assert [thing.value for thing in pair] == ["comedy", "western"]
