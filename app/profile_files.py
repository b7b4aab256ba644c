"""Fitted profiles on disk, whatever their kind: one artefact each, opened again by the kind that it names."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from app.errors import StoreError
from app.files import read_json
from persona.artefacts import load_artefact, save_artefact
from persona.profiles import Profile, particles
from persona.profiles.amortised import AmortisedProfile
from persona.profiles.criteria import CriteriaProfile
from persona.profiles.general_preference import GeneralPreferenceProfile
from persona.profiles.hierarchical_bayes import HierarchicalBayes, LengthRule
from persona.profiles.inferred_direction import InferredDirection
from persona.profiles.latent import LatentProfile
from persona.profiles.mixture_of_rewards import MixtureOfRewards
from persona.profiles.pal import PalProfile
from persona.profiles.pooled import PooledReward
from persona.profiles.prompt_weights import PromptWeights

PROFILE = "profile"
"""Name of the two files of a profile, before their endings."""

Load = Callable[[Path, str], Profile]


class _Plain(NamedTuple):
    """How a profile is kept that has no files of its own.

    kind: Its name in the file.
    save: From the profile to its tensors and facts.
    load: And back.
    """

    kind: str
    save: Callable[[Any], tuple[dict[str, Any], dict[str, Any]]]
    load: Callable[[dict[str, Any], dict[str, Any]], Profile]


def _load_length_rule(tensors: dict[str, Any], facts: dict[str, Any]) -> LengthRule:
    return LengthRule(facts["column"], HierarchicalBayes(**tensors))


_PLAIN: Mapping[type[Any], _Plain] = {
    PooledReward: _Plain(
        "pooled reward",
        lambda profile: ({"weights": profile.weights}, {"l2": profile.l2}),
        lambda tensors, facts: PooledReward(tensors["weights"], facts["l2"]),
    ),
    LengthRule: _Plain(
        "length rule",
        lambda profile: (
            {"mean": profile.model.mean, "factor": profile.model.factor},
            {"column": profile.column},
        ),
        _load_length_rule,
    ),
}
# Readers of saved profiles, by the kind that their JSON names; each takes the folder and the name of the files.
LOADERS: Mapping[str, Load] = {
    "hierarchical Bayes": HierarchicalBayes.load,
    "latent profile": LatentProfile.load,
    "amortised profile": AmortisedProfile.load,
    "PAL profile": PalProfile.load,
    "general preference profile": GeneralPreferenceProfile.load,
    "mixture of rewards": MixtureOfRewards.load,
    "inferred direction": InferredDirection.load,
    "prompt weights": PromptWeights.load,
    "criteria profile": CriteriaProfile.load,
    particles.KIND: particles.Particles.load,
}


def save_profile(profile: Profile, folder: Path) -> None:
    """Write profile.safetensors and profile.json into `folder`.

    Args:
        profile: Any profile that has a `save` of its own, or is one of the baselines.
        folder: Made if missing.
    """
    plain = _PLAIN.get(type(profile))
    if plain is not None:
        tensors, facts = plain.save(profile)
        save_artefact(folder, PROFILE, kind=plain.kind, tensors=tensors, facts=facts)
    else:
        own: Any = profile
        own.save(folder, PROFILE)


def load_profile(folder: Path) -> Profile:
    """The profile that `save_profile` wrote, on the CPU.

    Raises:
        StoreError: There is no profile in the folder, or it is of a kind that this version does not know.
        DataError: The files are damaged.
    """
    path = folder / f"{PROFILE}.json"
    if not path.is_file():
        raise StoreError(
            f"A folder of a profile must hold {path.name}; got {folder}, without one. Make it with `persona fit`."
        )
    facts = read_json(path)
    kind = str(facts.get("kind")) if isinstance(facts, dict) else ""
    for plain in _PLAIN.values():
        if kind == plain.kind:
            return plain.load(*load_artefact(folder, PROFILE, kind=plain.kind))
    if kind not in LOADERS:
        known = ", ".join([*LOADERS, *(plain.kind for plain in _PLAIN.values())])
        raise StoreError(
            f"`{path}` must hold a profile of a known kind ({known}); got {kind!r}. Use the version that fitted it."
        )
    profile = LOADERS[kind](folder, PROFILE)
    return profile.eval() if isinstance(profile, nn.Module) else profile
