"""How a conditioned policy lies on disk: a PEFT folder, the gate in safetensors, and JSON that binds them."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from persona.errors import ModelError
from persona.policy.gate import RankGate

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
GATE_WEIGHTS = "gate.safetensors"
GATE_CARD = "gate.json"


class GateCard(BaseModel):
    """What `gate.json` says: the gate's sizes, the base model that it belongs to, hashes of the other files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent_dim: int
    direction_dim: int
    modules: int
    rank: int
    hidden: int
    base: str
    sha256: dict[str, str]


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes and first values of all weights, the same in float32 and bfloat16."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        first = weight.detach().flatten()[:16].to(torch.bfloat16).float().cpu()
        digest.update(f"{name}{tuple(weight.shape)}".encode() + first.numpy().tobytes())
    return digest.hexdigest()


def write_policy(folder: Path, peft_model: PeftModel, gate: RankGate, base: nn.Module) -> None:
    """Write adapter and gate; each file appears whole, `gate.json` with the others' hashes last.

    Args:
        folder: Made if it is not there; files of an earlier save are replaced.
        peft_model: Holder of the adapter named "default".
        gate: The gate.
        base: The frozen model that both belong to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as place:
        partial = Path(place)
        peft_model.save_pretrained(str(partial), save_embedding_layers=False)
        _put_in_order(partial / "adapter_config.json")
        tensors = {name: value.detach().cpu().contiguous() for name, value in gate.state_dict().items()}
        save_file(tensors, partial / GATE_WEIGHTS)
        names = (*ADAPTER_FILES, GATE_WEIGHTS)
        card = GateCard(
            latent_dim=gate.latent_dim,
            direction_dim=gate.direction_dim,
            modules=gate.modules_gated,
            rank=gate.rank,
            hidden=gate.hidden,
            base=fingerprint(base),
            sha256={name: _sha256(partial / name) for name in names},
        )
        (partial / GATE_CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        for name in (*names, GATE_CARD):
            _flush(partial / name)
            os.replace(partial / name, folder / name)
        _flush(folder)


def read_gate(folder: Path, base: nn.Module) -> RankGate:
    """Read the gate of a folder that `write_policy` wrote, after checking every file and the base model.

    Raises:
        ModelError: A file is missing, unreadable, or not the one that was saved; or `base` is not the model
            that the policy was trained on.
    """
    if missing := [n for n in (*ADAPTER_FILES, GATE_WEIGHTS, GATE_CARD) if not (folder / n).is_file()]:
        raise ModelError(
            f"A policy folder must hold adapter and gate; {str(folder)!r} lacks {missing}. Save the policy "
            "again."
        )
    try:
        content: Any = json.loads((folder / GATE_CARD).read_text(encoding="utf-8"))
        card = GateCard.model_validate(content)
    except (UnicodeDecodeError, json.JSONDecodeError, ValidationError) as err:
        raise ModelError(
            f"{GATE_CARD} must describe a gate; that in {str(folder)!r} does not ({type(err).__name__}). "
            "Save the policy again."
        ) from err
    names = (*ADAPTER_FILES, GATE_WEIGHTS)
    if changed := [name for name in names if card.sha256.get(name) != _sha256(folder / name)]:
        raise ModelError(
            f"The files of a policy must be those that were saved together; in {str(folder)!r} {changed} "
            "changed since. Save the policy again."
        )
    if card.base != fingerprint(base):
        raise ModelError(
            f"A policy must be loaded onto the base model that it was trained on; that of {str(folder)!r} "
            f"has fingerprint {card.base[:12]}, got {fingerprint(base)[:12]}. Load that base model first."
        )
    generator = torch.Generator().manual_seed(0)  # for weights that are replaced at once
    gate = RankGate(
        card.latent_dim,
        card.direction_dim,
        modules=card.modules,
        rank=card.rank,
        hidden=card.hidden,
        generator=generator,
    )
    gate.load_state_dict(load_file(folder / GATE_WEIGHTS))
    return gate


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put_in_order(card: Path) -> None:
    """Sort the names of modules, which peft keeps as a set: the same policy is the same bytes."""
    told = json.loads(card.read_text(encoding="utf-8"))
    told["target_modules"] = sorted(told["target_modules"])
    card.write_text(json.dumps(told, indent=2, sort_keys=True), encoding="utf-8")
