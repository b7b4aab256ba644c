"""Users learned from logs: choice scenes, fitted choice models, and rationales of choices."""

from simulators.mirror.choice_model import ConditionalLogit, fit_choices, option_covariates
from simulators.mirror.effects import Effect
from simulators.mirror.fitting import fit_levels
from simulators.mirror.learned_choices import LearnedChoices
from simulators.mirror.level_model import LevelModel
from simulators.mirror.manner import Manners
from simulators.mirror.scenes import ChoiceScenes, place_uniformly, sampled_scenes, slate_scenes
from simulators.mirror.wording import Wording

__all__ = [
    "ChoiceScenes",
    "ConditionalLogit",
    "Effect",
    "LearnedChoices",
    "LevelModel",
    "Manners",
    "Wording",
    "fit_choices",
    "fit_levels",
    "option_covariates",
    "place_uniformly",
    "sampled_scenes",
    "slate_scenes",
]
