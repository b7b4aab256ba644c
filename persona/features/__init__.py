"""Features of replies: counts, overlap with the prompt, states of models; cached, standardised, probed."""

from persona.features.cache import FeatureCache
from persona.features.featurizer import LIMIT, Block, Featurizer
from persona.features.probes import probe_attributes
from persona.features.relation import RELATION_NAMES, relation_features
from persona.features.states import StateEncoder, StateSettings
from persona.features.surface import LENGTH_COLUMN, SURFACE_NAMES, WORD_GROUPS, surface_features
from persona.features.text import TextFeatures, parse_features

__all__ = [
    "LENGTH_COLUMN",
    "LIMIT",
    "RELATION_NAMES",
    "SURFACE_NAMES",
    "WORD_GROUPS",
    "Block",
    "FeatureCache",
    "Featurizer",
    "StateEncoder",
    "StateSettings",
    "TextFeatures",
    "parse_features",
    "probe_attributes",
    "relation_features",
    "surface_features",
]
