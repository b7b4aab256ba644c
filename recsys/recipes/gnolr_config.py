"""The settings of GNOLR's training."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recsys.models.ordinal import LevelTree

Structure = Literal["gnolr", "v1", "v0", "nolr"]


class GnolrConfig(BaseModel):
    """How to train GNOLR."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Deepest level C of the log.
    levels: int = Field(default=4, ge=1)
    # Level that each level 1..C deepens, 0 being "shown"; None is a chain. Parallel branches share a parent.
    parents: tuple[int, ...] | None = None
    # Level that retrieval aims at, 1..levels.
    retrieve_level: int = Field(default=2, ge=1)
    # "gnolr", or the paper's ablation: "v1" (no nesting), "v0" (nor adding of steps), "nolr" (one embedding).
    structure: Structure = "gnolr"
    # Whether users are known by their histories.
    history: bool = True
    # Whether steps have item and user biases, from statistics and features; "v0" has none.
    biases: bool = True
    # Fixed weight of every cosine in logits, cut where it would break the order of levels; None learns them.
    gamma: float | None = Field(default=None, gt=0)
    # Let training move the thresholds, keeping their order, rather than hold them to base rates.
    learn_thresholds: bool = False
    # Width of an item's embedding.
    embedding: int = Field(default=32, ge=1)
    # Width of each level's unit vector.
    width: int = Field(default=32, ge=1)
    # Width of a hidden layer in both towers; 0 keeps them linear, which is several times faster.
    hidden: int = Field(default=0, ge=0)
    # Rows of the whole log that an item's own rates are drawn to, and a user's own.
    item_prior_rows: float = Field(default=5.0, gt=0)
    user_prior_rows: float = Field(default=200.0, gt=0)
    # Share of impressions foretold without any history, so that strangers are served well.
    history_dropout: float = Field(default=0.1, ge=0, lt=1)
    # Sampled level-0 rows for each impression; 0 trains on impressions alone.
    negatives: float = Field(default=16.0, ge=0)
    # Items drawn as negatives in each step, shared by its users.
    negative_items: int = Field(default=1024, ge=1)
    # Impressions in a step, about.
    batch_rows: int = Field(default=2048, ge=1)
    # Passes over the log, at most.
    epochs: int = Field(default=20, ge=1)
    # Passes without a better validation loss before training stops.
    patience: int = Field(default=3, ge=1)
    # Adam's step size.
    learning_rate: float = Field(default=0.002, gt=0)
    # Decoupled decay of item embeddings per unit of learning rate; item biases get a quarter of it, the rest half.
    weight_decay: float = Field(default=2.0, ge=0)
    # Share of the users kept for the validation loss where no validation rows are given; 0 trains on all.
    validation_users: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits_together(self) -> "GnolrConfig":
        if self.retrieve_level > self.levels:
            raise ValueError(
                f"`retrieve_level` must be at most `levels` ({self.levels}); got {self.retrieve_level}. Lower it."
            )
        if self.structure == "v0" and self.biases:
            raise ValueError(
                "`biases` must be false for structure 'v0', whose steps are not added; got true."
            )
        if len(self.tree.parents) != self.levels:
            raise ValueError(
                f"`parents` must name one parent for each of the {self.levels} levels; got {self.parents}."
            )
        return self

    @property
    def tree(self) -> LevelTree:
        """The levels."""
        return LevelTree.chain(self.levels) if self.parents is None else LevelTree(self.parents)

    @property
    def nested(self) -> bool:
        """Whether the loss sums all readings of the levels."""
        return self.structure == "gnolr"
