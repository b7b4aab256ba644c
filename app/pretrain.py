"""`persona pretrain`: trains the embedded language model from film conversations and openly licensed dialogues."""

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from app.errors import StoreError
from app.files import PARTIAL, read_json, write_json
from persona.data.dialogues import read_dialogues
from persona.errors import DataError
from persona.policy.device import resolve_device
from persona.policy.tokenizer import train_tokenizer
from persona.recipes.pretrain import PretrainConfig, build_model, pretrain, token_rows
from simulators.world.conversations import SLOTS, film_conversations

Message = dict[str, str]

_SETTINGS = "settings.json"
_REAL_SHARE = 0.2
_VOCABULARY = 4096
_HELD_OUT_ROWS = 64
_WISHES = (
    "comedy drama thriller horror romance western mystery animation adventure crime fantasy war musical funny sad "
    "tense warm dark light gentle wild scary slow happy"
).split()


def main(
    dialogues: Path,
    out: Path,
    *,
    minutes: float | None = None,
    tokens: int | None = None,
    seed: int = 0,
    resume: bool = False,
    console: Console | None = None,
) -> None:
    """Train a model and leave a Hugging Face folder in `out`, with its log and the settings of its start beside it.

    Args:
        dialogues: Folder of dialogues as JSON lines, at least two; one in fifty, and at least one, is held out.
        out: Folder to write.
        minutes: Stop at the first evaluation after so long; `resume` goes on from there.
        tokens: Tokens to train on in all; None takes the recipe's default. A resumed training may have another
            number than it began with: the learning rate then falls to its end there.
        seed: Draws weights, text and order.
        resume: Whether `out` may hold a stopped training of the same settings.
        console: Where progress is shown.

    Raises:
        StoreError: `out` is no folder that can be written, holds a training and `resume` is False, holds a training
            of other settings, or holds something else.
        DataError: The dialogues cannot be read or are too few, or the saved state is damaged.
    """
    config = PretrainConfig(seed=seed) if tokens is None else PretrainConfig(seed=seed, tokens=tokens)
    begun = _check_folder(out, config, resume=resume)
    real = list(read_dialogues(dialogues))
    if len(real) < 2:
        raise DataError(
            f"`{dialogues}` must hold at least 2 dialogues, one of them to hold out; got {len(real)}. Add dialogues."
        )
    order = np.random.default_rng(seed).permutation(len(real))
    held, kept = ([real[i] for i in part] for part in np.split(order, [max(1, len(real) // 50)]))
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not begun:
            write_json(out / _SETTINGS, config.model_dump(mode="json"))
        _train(config, kept, held, out, minutes=minutes, console=console)
    except (OSError, SafetensorError) as err:
        raise _unwritable(out, err) from err


def _check_folder(out: Path, config: PretrainConfig, *, resume: bool) -> bool:
    """Whether a training to go on with lies in `out`; changes nothing."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"--out must be a folder; got {out}, which is a file. Choose another --out.")
    try:
        names = sorted(path.name for path in out.iterdir()) if out.exists() else []
    except OSError as err:
        raise _unwritable(out, err) from err
    strange = [name for name in names if not name.startswith(PARTIAL)]
    if not strange:
        return False
    then = read_json(out / _SETTINGS) if _SETTINGS in names else None
    now = config.model_dump(mode="json")
    if not isinstance(then, dict) or not then.keys() & now.keys():
        raise StoreError(
            f"--out must be empty or hold a training; got {out} with {', '.join(strange[:3])} in it. Choose another "
            "--out."
        )
    if not resume:
        raise StoreError(
            f"--out must not hold a training yet; got {out}, which does. Pass --resume to go on, or choose another."
        )
    other = sorted(key for key in then | now if key != "tokens" and then.get(key) != now.get(key))
    if other:
        change = ", ".join(f"{key} {then.get(key)!r} there and {now.get(key)!r} now" for key in other[:3])
        raise StoreError(
            f"--resume must meet the same settings, but for --tokens; got {out} with {change}. Give what it began "
            "with, or choose another --out."
        )
    return True


def _train(
    config: PretrainConfig,
    kept: Sequence[list[Message]],
    held: Sequence[list[Message]],
    out: Path,
    *,
    minutes: float | None,
    console: Console | None,
) -> None:
    """Train on the dialogues `kept`, measuring on those `held`, and export at every evaluation."""
    # A model goes on only with the tokens it began with, whatever has become of the grammar since.
    fitted = (out / "tokenizer.json").exists()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out) if fitted else _fit_tokenizer(kept, config.seed)
    model = build_model(config, tokenizer)
    model.config.persona_slots = sorted(SLOTS)
    fresh = film_conversations(np.random.default_rng((config.seed, 2)), words=_WISHES)
    held_out = {
        "dialogues": _rows(_repeat(held, config.seed), tokenizer, config),
        "film": _rows(fresh, tokenizer, config),
    }
    columns = (
        TextColumn("pre-training"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=console) as progress,
        (out / "log.jsonl").open("a", encoding="utf-8") as log,
    ):
        task = progress.add_task("", total=config.tokens)

        def report(row: dict[str, float]) -> None:
            log.write(json.dumps({name: round(value, 4) for name, value in row.items()}) + "\n")
            log.flush()
            losses = ", ".join(f"{k[5:]} {v:.3f}" for k, v in row.items() if k.startswith("loss_"))
            progress.update(task, completed=row["tokens"], description=losses)
            _export(model, tokenizer, out)

        pretrain(
            config,
            model,
            token_rows(_mixture(kept, config.seed), tokenizer, config.context),
            held_out=held_out,
            state_folder=out / "state",
            report=report,
            device=str(resolve_device("auto")),
            minutes=minutes,
        )


def _unwritable(out: Path, err: OSError | SafetensorError) -> StoreError:
    reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return StoreError(
        f"--out must be a folder that can be written; got {out} ({reason}). Choose another --out."
    )


def _fit_tokenizer(dialogues: Sequence[list[Message]], seed: int) -> PreTrainedTokenizerFast:
    """A tokenizer of equal shares of real dialogues and film conversations."""
    world = film_conversations(np.random.default_rng((seed, 1)), words=_WISHES)
    texts = [m["content"] for dialogue in dialogues[:20_000] for m in dialogue]
    texts += [m["content"] for _ in range(20_000) for m in next(world)]
    return train_tokenizer(texts, vocab_size=_VOCABULARY, slots=sorted(SLOTS))


def _export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model in bf16 as an ordinary Hugging Face folder."""
    half = copy.deepcopy(model)
    nn.Module.to(half, "cpu", torch.bfloat16)
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _mixture(real: Sequence[list[Message]], seed: int) -> Iterator[list[Message]]:
    """Film conversations and real dialogues at the fixed share of conversations."""
    rng = np.random.default_rng((seed, 3))
    remarks = [m["content"] for dialogue in real for m in dialogue[:3] if 10 < len(m["content"]) < 80]
    film = film_conversations(rng, remarks=remarks, words=_WISHES)
    chat = _repeat(real, seed)
    while True:
        yield next(chat) if rng.random() < _REAL_SHARE else next(film)


def _repeat(dialogues: Sequence[list[Message]], seed: int) -> Iterator[list[Message]]:
    rng = np.random.default_rng((seed, 4))
    while True:
        for index in rng.permutation(len(dialogues)):
            yield dialogues[index]


def _rows(
    conversations: Iterator[list[Message]], tokenizer: PreTrainedTokenizerFast, config: PretrainConfig
) -> torch.Tensor:
    rows = token_rows(conversations, tokenizer, config.context)
    return torch.from_numpy(np.stack([next(rows) for _ in range(_HELD_OUT_ROWS)]))
