"""`persona audit`: from files to verdicts, a JSON file and a page, and one clear sentence for whatever is wrong."""

import gzip
import io
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console
from typer.testing import CliRunner

from app.audit import AUDIT_HTML, AUDIT_JSON, audit
from app.audit_config import AuditConfig, build_audit_config
from app.audit_data import read_evidence
from app.cli import app
from app.errors import ConfigError, StoreError
from app.pages import read_template
from simulators.errors import FaithfulnessError, PersonaError
from simulators.faithfulness import USES, Evidence
from tests.helpers.film_evidence import film_dialogues, film_interactions, film_scenes, write_lines

USERS = 30


class Finished(NamedTuple):
    """out: Its folder. report: Its JSON. page: Its HTML. printed: What stood on the terminal."""

    out: Path
    report: dict[str, Any]
    page: str
    printed: str


def run(out: Path, simulated: list[Path], log: list[Path], **settings: Any) -> Finished:
    terminal = io.StringIO()
    config = AuditConfig(simulated=tuple(map(str, simulated)), log=tuple(map(str, log)), **settings)
    report = audit(config, out, console=Console(file=terminal, width=120))
    assert json.loads((out / AUDIT_JSON).read_text()) == report
    return Finished(out, report, (out / AUDIT_HTML).read_text(), terminal.getvalue())


def refused(*arguments: str) -> str:
    """The one line of an error."""
    result = CliRunner().invoke(app, ["audit", *arguments])
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1, result.output
    return result.stderr


@pytest.fixture(name="files", scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("evidence")
    dialogues = [dict(saved) for saved in film_dialogues(USERS, 1)]
    dialogues[0] = json.loads(json.dumps(dialogues[0]))
    dialogues[0]["turns"][0]["user"]["text"] = "As an AI <script>alert(1)</script> I recommend this."
    film_interactions(USERS, 1).to_csv(folder / "simulated.csv", index=False)
    film_interactions(USERS, 0).to_parquet(folder / "real.parquet")
    film_scenes(USERS, 0).to_csv(folder / "scenes.tsv", sep="\t", index=False)
    return {
        "talk": write_lines(folder / "simulated.jsonl", dialogues),
        "real_talk": write_lines(folder / "real.jsonl", film_dialogues(USERS, 0)),
        "table": folder / "simulated.csv",
        "real_table": folder / "real.parquet",
        "scenes": folder / "scenes.tsv",
    }


@pytest.fixture(name="finished", scope="module")
def everything(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("audits") / "deep" / "one"
    simulated = [files["talk"], files["table"], files["scenes"]]
    return run(out, simulated, [files["real_talk"], files["real_table"]], accept_level=1)


@pytest.mark.integration
def test_every_use_gets_a_line_and_every_part_is_there(finished: Finished) -> None:
    flat = " ".join(finished.printed.split())
    for use, verdict in zip(USES, finished.report["verdicts"], strict=True):
        assert verdict["use"] == use and f"{use.capitalize()}: {verdict['answer']}, because " in flat
    assert "Simulated: 30 users, 1,500 reactions, 30 dialogues, 90 choices" in flat
    assert {
        "levels", "satisfaction", "acceptance_rate", "acceptance", "position", "ranking", "sessions", "abandonment",
        "ends", "choices", "errors", "disclosure", "diversity", "two_sample",
    } <= set(finished.report)  # fmt: skip
    manifest = finished.report["manifest"]
    assert len(manifest["data_hashes"]) == 5 and manifest["config"]["accept_level"] == 1


@pytest.mark.integration
def test_the_page_stands_alone_and_escapes_what_users_say(finished: Finished) -> None:
    own = finished.page.replace(get_plotlyjs(), "").replace(read_template("report.js"), "")
    assert "<script>alert" not in own and "&lt;script&gt;alert(1)&lt;/script&gt;" in own
    assert "http" not in own.replace("http-equiv", "") and "default-src 'none'" in own
    figures = re.findall(r'<script type="application/json" id="figure-(.*?)">(.*?)</script>', own, re.DOTALL)
    assert {name for name, _ in figures} == {
        "limits", "levels", "satisfaction", "position", "ranking", "sessions", "abandonment", "ends", "errors",
        "disclosure", "reliability", "slots",
    }  # fmt: skip
    assert all(json.loads(text)["data"] for _, text in figures)
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(own)
    assert tags.count("details") == len(figures) + 1 and tags.count("table") >= 20
    links = re.findall(r'href="#(\w+)"', own)
    assert links and all(f'id="{link}"' in own for link in links)


def test_figures_of_a_single_user_are_shown_without_an_interval(tmp_path: Path) -> None:
    paths = []
    for side, level in (("simulated", 4), ("real", 1)):
        chats = [
            {
                "user_id": user,
                "messages": [
                    {"role": "user", "content": f"Something {user}, please."},
                    {"role": "assistant", "content": "See this.", "title": "This", "level": level}
                    | ({"satisfaction": 4.0} if user == 0 else {}),
                ],
            }
            for user in range(4)
        ]
        paths.append(write_lines(tmp_path / f"{side}.jsonl", chats))
    found = run(tmp_path / "out", [paths[0]], [paths[1]])
    measure = found.report["satisfaction"]["ks"]
    assert measure["n"] == 1 and measure["ci95"] == [None, None]
    assert "[too few users]" in found.page and "None" not in found.page.replace(get_plotlyjs(), "")
    assert not any(verdict["answer"] == "yes" for verdict in found.report["verdicts"])


@pytest.mark.integration
def test_the_same_files_and_seed_give_the_same_bytes(files: dict[str, Path], tmp_path: Path) -> None:
    first, second = (run(tmp_path / n, [files["scenes"]], []) for n in "ab")
    assert first.page == second.page and first.report == second.report
    assert "Words" not in re.findall(r"<h2[^>]*>(.*?)</h2>", first.page)


@pytest.mark.integration
def test_a_yes_man_is_refused_on_the_command_line(files: dict[str, Path], tmp_path: Path) -> None:
    film_interactions(USERS, 1, agreeable=True).to_parquet(tmp_path / "yes.parquet")
    arguments = [
        str(tmp_path / "yes.parquet"),
        "--log",
        str(files["real_table"]),
        "--out",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(app, ["audit", *arguments, "--accept-level", "1", "--limit", "level_ks=0.2"])
    assert result.exit_code == 0, result.output
    assert "Fit to train against: no, because" in result.stdout
    assert "Fit to rank recommenders: no, because" in result.stdout
    report = json.loads((tmp_path / "out" / AUDIT_JSON).read_text())
    assert report["limits"]["level_ks"]["value"] == 0.2 and report["ranking"]["tau"]["value"] is None


def test_dialogues_are_read_from_every_form(files: dict[str, Path], tmp_path: Path) -> None:
    saved = list(film_dialogues(USERS, 0))
    plain = read_evidence([files["real_talk"]], side="real", max_level=4).dialogues
    with gzip.open(tmp_path / "talk.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n\n" for row in saved)
    # A complaint is a name and a sign, which no column of Parquet holds together; the audit does not ask for it.
    bare = [{**row, "turns": [{**turn, "complaint": None} for turn in row["turns"]]} for row in saved]
    pd.DataFrame(bare).to_parquet(tmp_path / "nested.parquet")
    stored = {"user": range(USERS), "turns": 1, "dialogue": [json.dumps(row) for row in saved]}
    pd.DataFrame(stored).to_parquet(tmp_path / "stored.parquet")
    for name in ("talk.jsonl.gz", "nested.parquet", "stored.parquet"):
        assert read_evidence([tmp_path / name], side="real", max_level=4).dialogues == plain
    chats = [{"user_id": 1, "messages": [{"role": "user", "content": "Hello"}], "likes": ["War"]}]
    pd.DataFrame(chats).to_parquet(tmp_path / "chat.parquet")
    (chat,) = read_evidence([tmp_path / "chat.parquet"], side="real", max_level=4).dialogues
    assert chat.likes == ("War",) and chat.said == ["Hello"]


def test_columns_are_renamed_and_lines_of_json_may_be_a_table(tmp_path: Path) -> None:
    rows = [{"visitor": 1, "item_id": 7, "stars": 5}, {"visitor": 2, "item_id": 7, "stars": 1}]
    path = write_lines(tmp_path / "log.jsonl", rows)
    columns = {"user_id": "visitor", "level": "stars"}
    table = read_evidence([path], side="real", max_level=5, columns=columns).interactions
    assert table is not None and table["level"].tolist() == [5, 1] and table["user_id"].tolist() == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "", "at least one row; got none"),
        ("a.csv", "", "at least one row; got none"),
        ("a.csv", "user_id,item_id,level\n", "at least one row; got none"),
        (
            "a.jsonl",
            '{"user_id": 1, "messages": []}\n{"user_id"',
            "one JSON object; got something else in line 2",
        ),
        ("a.jsonl", "[1]", "one JSON object; got list in line 1"),
        (
            "a.jsonl",
            '{"user_id": 1, "messages": [{"role": "bot", "content": ""}]}',
            "dialogue 1: .*got 'bot'",
        ),
        (
            "a.jsonl",
            '{"user_id": 1, "messages": []}\n{"messages": [], "user_id": 1}',
            "got dialogue 2 of .* equal to dialogue 1",
        ),
        ("a.txt", "x", "must end in .*; got a.txt"),
        ("a.parquet", "x", "must be readable as parquet"),
        ("a.csv", "a,b\n1,2\n", "interactions .* or predictions .*; got the columns a, b"),
        (
            "a.csv",
            "user_id,item_id\n1,2\n",
            "a.csv: The real interactions must have the columns .*level missing",
        ),
        ("a.csv", "user_id,item_id,level\n1,2,9\n2,2,1\n", r"whole numbers in 0..4; got \[9.0\]"),
        ("a.csv", "user_id,item_id,level\n1,2,3\n", r"at least two users.*got 1 \(1\)"),
        ("a.csv", "scene_id,user_id,probability,chosen\n1,1,1,1\n", "belong to the simulated side"),
    ],
)
def test_files_that_make_no_sense_are_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(FaithfulnessError, match=said):
        read_evidence([tmp_path / name], side="real", max_level=4)


@pytest.mark.parametrize(("text", "shown"), [("{", r"'\{'"), ("[1, 2]", r"'\[1, 2\]'"), ("5", "'5'")])
def test_stored_dialogues_that_are_no_json_are_refused(tmp_path: Path, text: str, shown: str) -> None:
    pd.DataFrame({"dialogue": [text]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        FaithfulnessError, match=rf"Column `dialogue` of .* must hold JSON objects as texts; got {shown}\."
    ):
        read_evidence([tmp_path / "a.parquet"], side="real", max_level=4)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_a_compressed_file_that_was_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    whole = gzip.compress("\n".join(f'{{"user_id":{i},"item_id":1,"level":2}}' for i in range(500)).encode())
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FaithfulnessError, match=r"must be readable as .*gz; got: Compressed file ended"):
        read_evidence([tmp_path / name], side="real", max_level=4)


def test_half_a_character_in_a_log_stops_nothing(tmp_path: Path) -> None:
    lines = [
        {"user_id": user, "messages": [{"role": "user", "content": f"Hello \ud83d, as an AI, {user}"}]}
        for user in range(3)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_evidence([tmp_path / "a.jsonl"], side="real", max_level=4)
    assert found.dialogues[0].said == ["Hello \N{REPLACEMENT CHARACTER}, as an AI, 0"]


def test_a_column_that_is_named_takes_the_place_of_one_of_our_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,level,stars\n1,2,0,4\n2,1,0,3\n")

    def read(**columns: str) -> pd.DataFrame:
        found = read_evidence([tmp_path / "a.csv"], side="real", max_level=4, columns=columns).interactions
        assert found is not None
        return found

    assert read(level="stars")["level"].tolist() == [4, 3]
    assert read(user_id="item_id", item_id="user_id")["user_id"].tolist() == ["2", "1"]
    with pytest.raises(
        FaithfulnessError, match=r"a name of ours; got 'stars'\. Names are user_id, item_id, level"
    ):
        read(stars="level")


def test_files_of_one_kind_are_joined(files: dict[str, Path], tmp_path: Path) -> None:
    def read(*paths: Path) -> Evidence:
        return read_evidence(paths, side="simulated", max_level=4)

    both = [read(files[name]).dialogues for name in ("talk", "real_talk")]
    assert read(files["talk"], files["real_talk"]).dialogues == both[0] + both[1]
    table = pd.DataFrame({"user_id": [1, 2, 3, 4], "item_id": [1, 1, 2, 2], "level": [0, 1, 2, 3]})
    for name, part in (("a", table[:2]), ("b", table[2:]), ("c", table[2:].assign(policy="A"))):
        part.to_csv(tmp_path / f"{name}.csv", index=False)
    joined = read(tmp_path / "a.csv", tmp_path / "b.csv").interactions
    assert joined is not None and joined["level"].tolist() == [0, 1, 2, 3]
    with pytest.raises(FaithfulnessError, match=r"`policy` .* must have a value in every row; got none in 2"):
        read(tmp_path / "a.csv", tmp_path / "c.csv")


def test_what_two_files_hold_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    lines = files["talk"].read_text(encoding="utf-8").splitlines()
    part = write_lines(tmp_path / "part.jsonl", [json.loads(line) for line in lines[3:5]])
    with pytest.raises(
        FaithfulnessError, match=r"got dialogue 1 of .*part\.jsonl equal to dialogue 4 of .*simulated"
    ):
        read_evidence([files["talk"], part], side="simulated", max_level=4)
    with pytest.raises(FaithfulnessError, match="one file of predictions at most; got 2"):
        read_evidence([files["scenes"], files["scenes"]], side="simulated", max_level=4)


def test_dialogues_of_several_policies_rank_them(tmp_path: Path) -> None:
    names = ["poor", "fair", "good"]

    def write(name: str, levels: Sequence[int], side: str) -> Path:
        rows = [
            {"user_id": user, "policy": name, "messages": [
                {"role": "user", "content": "Something calm?"},
                {"role": "assistant", "content": f"Try {side} {user}.", "title": "Calm", "level": level},
            ]}
            for user, level in enumerate(levels)
        ]  # fmt: skip
        return write_lines(tmp_path / f"{side}-{name}.jsonl", rows)

    files = {
        side: [
            write(name, [4] * good + [0] * (40 - good), side)
            for name, good in zip(names, counts, strict=True)
        ]
        for side, counts in (("one", (2, 20, 38)), ("other", (5, 18, 30)))
    }
    found = run(tmp_path / "out", files["one"], files["other"])
    ranking = found.report["ranking"]
    assert ranking["policies"] == ["good", "fair", "poor"] and ranking["tau"]["value"] == 1.0
    inputs = found.report["manifest"]["data_hashes"]
    assert sum(name.startswith("simulated: ") for name in inputs) == len(names)


@pytest.mark.parametrize(
    ("options", "limits", "said"),
    [
        ({"accept_level": 5}, (), "--accept-level must be at most --max-level .4.; got 5"),
        ({"max_level": 0}, (), "--max-level must fit"),
        ({}, ("level_ks",), "must read NAME=NUMBER; got level_ks. Names are level_ks"),
        ({}, ("sense=1",), "got sense=1"),
        ({}, ("level_ks=much",), "level_ks must be a number; got 'much'"),
        ({}, ("level_ks=2",), "--limit level_ks must fit: .*; got 2"),
        ({"simulated": ("nowhere.jsonl",)}, (), "must exist; got nowhere.jsonl"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    files: dict[str, Path], options: dict[str, Any], limits: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        build_audit_config({"simulated": (str(files["talk"]),), **options}, limits)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (lambda f: [str(f["talk"])], "something in common to compare"),
        (lambda f: [str(f["talk"]), "--log", "nowhere.csv"], "must exist; got nowhere.csv"),
        (
            lambda f: [str(f["table"]), "--log", str(f["real_table"]), "--max-level", "3"],
            "whole numbers in 0..3",
        ),
    ],
)
def test_a_fault_is_one_line(
    files: dict[str, Path], tmp_path: Path, arguments: Callable[[dict[str, Path]], list[str]], said: str
) -> None:
    assert said in refused(*arguments(files), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_told(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="must be a folder that can be made"):
        run(tmp_path / "file" / "out", [files["scenes"]], [])


PERSONA = '{"user": 3, "likes": ["comedy"], "dislikes": ["horror"], "targets": ["The Quiet Harbour"]}\n'


def told_folder(folder: Path, personas: str | None, name: str = "dialogues.jsonl") -> Path:
    """A simulation's folder: user 3 gives its title away and speaks against its persona, user 4 has none."""
    said = "I hate comedies and want The Quiet Harbour."
    turn = {"item": 1, "title": "Other", "facts": {"genre": "drama"}, "level": 0, "satisfaction": 2.0,
            "complaint": None, "reply": {"raw": "", "text": "Try Other."}, "next": {"raw": "", "text": "No."},
            "stop": None, "user": {"raw": said, "text": said}}  # fmt: skip
    folder.mkdir()
    if personas is not None:
        (folder / "personas.jsonl").write_text(personas)
    return write_lines(
        folder / name, [{"user": user, "stop": "max_turns", "turns": [turn]} for user in (3, 4)]
    )


def test_personas_beside_a_simulations_dialogues_show_leaks_and_contradictions(tmp_path: Path) -> None:
    simulated, real = told_folder(tmp_path / "a", PERSONA), told_folder(tmp_path / "b", None)
    report = run(tmp_path / "out", [simulated], [real]).report
    for tag in ("title_leak", "contradiction"):
        found = report["errors"]["tags"][tag]
        assert (found["simulated"]["value"], found["real"]["value"]) == (0.5, 0.0)
    assert any(note.startswith("In 1 of 2 simulated dialogues it is known") for note in report["notes"])
    assert not any("real dialogues it is known" in note for note in report["notes"])
    assert any(name.endswith("personas.jsonl") for name in report["manifest"]["data_hashes"])


def test_personas_are_taken_for_the_simulations_own_dialogues_alone(tmp_path: Path) -> None:
    def known(path: Path) -> list[tuple[str, ...]]:
        found = read_evidence([path], side="real", max_level=4)
        return [dialogue.targets for dialogue in found.dialogues]

    assert known(told_folder(tmp_path / "own", PERSONA)) == [("The Quiet Harbour",), ()]
    assert known(told_folder(tmp_path / "real", PERSONA, "real.jsonl")) == [(), ()]
    chats = tmp_path / "chats"
    chats.mkdir()
    (chats / "personas.jsonl").write_text("of another system")
    chat = {"user": 3, "messages": [{"role": "user", "content": "Hello."}], "targets": "Up"}
    assert known(write_lines(chats / "dialogues.jsonl", [chat])) == [("Up",)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{\n", r"line 1 does not: the line: Invalid JSON"),
        (PERSONA + '{"user": 4, "loves": []}\n', r"line 2 does not: loves: Extra inputs"),
        (PERSONA * 2, r"got user 3 again in line 2\. Delete one"),
    ],
)
def test_damaged_personas_are_told(tmp_path: Path, content: str, says: str) -> None:
    path = told_folder(tmp_path / "a", content)
    with pytest.raises(PersonaError, match=says):
        read_evidence([path], side="simulated", max_level=4)
