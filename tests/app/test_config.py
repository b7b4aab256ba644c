import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from app.config import RunConfig, load_config, load_settings
from app.errors import ConfigError
from app.simulate_config import SimulateConfig
from app.train_config import TrainConfig

CONFIGS = Path(__file__).parents[2] / "app" / "configs"
SOURCE = (Path(__file__).parents[2] / "app" / "config.py").read_text(encoding="utf-8")


def write(folder: Path, text: str) -> Path:
    path = folder / "my.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_shipped_configuration_loads() -> None:
    kinds: dict[str, type[BaseModel]] = {
        "default": RunConfig,
        "simulate": SimulateConfig,
        "train": TrainConfig,
    }
    found = {path.stem: path for path in CONFIGS.rglob("*.toml")}
    assert found.keys() == kinds.keys()
    for name, path in found.items():
        load_settings(kinds[name], path)


def test_default_file_spells_out_every_default() -> None:
    with (CONFIGS / "default.toml").open("rb") as file:
        assert tomllib.load(file) == RunConfig().model_dump()


def test_every_field_has_a_comment_above_it() -> None:
    body = SOURCE[SOURCE.index("class RunConfig") : SOURCE.index("def load_config")]
    for name in RunConfig.model_fields:
        assert re.search(rf"^    # .+\n    {name}:", body, re.MULTILINE), name


def test_command_line_beats_file_and_file_beats_default(tmp_path: Path) -> None:
    path = write(tmp_path, "users = 300\nturns = 4\n")
    config = load_config(path, ["turns=3", "beta=1e-2"])
    assert (config.users, config.turns, config.beta, config.rounds) == (300, 3, 0.01, RunConfig().rounds)


def test_last_override_of_a_key_counts() -> None:
    assert load_config(None, ["seed=1", "seed=2"]).seed == 2


def test_value_may_hold_an_equals_sign() -> None:
    assert load_config(None, ["catalogue=data/a=b"]).catalogue == "data/a=b"


def test_config_is_frozen() -> None:
    config: Any = RunConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("usrs=300", r"got `usrs` on the command line. Did you mean `users`\?"),
        ("zzzz=1", r"got `zzzz` on the command line. The keys are catalogue, model, device"),
        ("users=many", r"`users` must fit its field .*integer.*; got 'many' on the command line"),
        ("users=3", r"`users` must fit its field .*greater than or equal to 40.*; got '3'"),
        ("beta=nan", r"`beta` must fit its field .*finite.*; got 'nan'"),
        ("device=tpu", r"`device` must fit its field .*; got 'tpu'"),
        ("seed", r"must read key=value; got 'seed'"),
        ("=3", r"must read key=value; got '=3'"),
    ],
)
def test_bad_override_is_told_in_one_sentence(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(None, [override])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("usrs = 300", r"got `usrs` in .*my.toml. Did you mean `users`"),
        ('users = "300"', r"`users` must fit its field .*; got '300' in .*my.toml"),
        ("users = true", r"`users` must fit its field .*; got True in .*my.toml"),
        ("users = ", r"TOML in UTF-8; got .*my.toml, which is not \(Invalid value"),
        ("[policy]\nrank = 3", r"got `policy` in .*my.toml"),
    ],
)
def test_bad_file_is_told_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(write(tmp_path, text))


def test_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes('model = "caf\xe9"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"TOML in UTF-8; got .*latin.toml"):
        load_config(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"readable TOML file; got .*absent.toml \(No such file"):
        load_config(tmp_path / "absent.toml")
