"""MBDS: a meta-classifier of feature maps, learned from shadow models with Jumbo backdoors.

Wu et al., *Defending Against Backdoor Attacks on Deep Neural Networks by Meta Backdoor Analysis*.
The defender contaminates its own samples many times (Algorithm 1), trains a shadow model on each
set, reads the feature maps of the samples there, and learns to tell triggered from clean ones. Of a
deployed model it reads the same maps, or, where that is a black box (section III-D), of its own
shadow models the maps of the input.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from fl_shield.data.task import Split
from fl_shield.errors import ConfigurationError, ModelError, expected, raise_all, unknown
from fl_shield.scanning.calibration import conformal_threshold
from fl_shield.scanning.contamination import contaminate
from fl_shield.scanning.evidence_maps import CleanEvidence, mirrored
from fl_shield.scanning.feature_maps import FeatureMapReader, Features
from fl_shield.scanning.mbds_shadows import kept_features, shadow_model
from fl_shield.scanning.meta_classifier import MetaClassifier, train_meta_classifier
from fl_shield.scanning.protocol import (
    Held,
    Level,
    Samples,
    Scores,
    check_form,
    not_fitted,
    require_inputs,
    require_labels,
    require_model,
)

Source = Literal["deployed", "shadow"]

EVEN_ODDS = 0.0
"""Log-odds of the paper's verdict, which knows no rate of false alarms."""

ASIDE = 0.25
"""Share of the defender's samples that a shadow model is not trained on and that its evidence is
read of: a model is surer of samples that it has learned by heart than it will be of new ones."""


@dataclass(frozen=True)
class ShadowFigures:
    """How good the shadow models are: Table I of the paper.

    Attributes:
        benign_accuracy: Of each on the defender's clean samples, on which it was trained.
        attack_success: Of each on its own triggered samples that are not of the target class.
    """

    benign_accuracy: tuple[float, ...]
    attack_success: tuple[float, ...]


class Mbds:
    """The Meta Backdoor Defense System, at sample level.

    Features of samples that a shadow model gets wrong are left out, and so are triggered samples
    that are of the target class anyway: what the model goes by is uncertain there (section V-A, a).

    Args:
        extractors: Shadow models; 1,024 in the paper.
        share: Share of each shadow model's features that is kept; 0.01 in the paper.
        features: `"feature_maps"` before the first fully connected layer, `"grad_cam"` (V-E), or
            `"evidence"`: what the maps say for the predicted class, in units of clean samples on
            the same model (`evidence_maps`), of samples that were set `ASIDE`. Shadow models start
            from different weights: a channel of one is no channel of another, nor as loud.
        reads: What an input is run through: the `"deployed"` model, or the `"shadow"` models, over
            which log-odds are averaged. The paper's defender has black-box access only (III-D), and
            then an input is not seen by the model whose backdoor it carries.
        epochs: Passes over the features in training the meta-classifier, at most.
        false_alarms: Share of clean samples that may be suspected; None for the paper's verdict at
            even odds.
        store: Folder that shadow models are kept in, so that training them can be interrupted;
            None to keep none.
        watch: Wraps the numbers of the shadow models while they are trained, for a progress bar
            such as `rich.progress.track`.

    Raises:
        ConfigurationError: if a setting is impossible.
    """

    name: ClassVar[str] = "mbds"
    level: ClassVar[Level] = "sample"

    def __init__(
        self,
        *,
        extractors: int = 16,
        share: float = 0.2,
        features: Features = "feature_maps",
        reads: Source = "deployed",
        epochs: int = 20,
        false_alarms: float | None = 0.05,
        store: str | Path | None = None,
        watch: Callable[[Sequence[int]], Iterable[int]] | None = None,
    ) -> None:
        problems = []
        for key, count in (("extractors", extractors), ("epochs", epochs)):
            if count < 1:
                problems.append(expected(f"scanner.{key}", "1 or more", count))
        if not 0 < share <= 1:
            problems.append(expected("scanner.share", "above 0 and at most 1", share))
        if features not in get_args(Features):
            problems.append(unknown("scanner.features", features, get_args(Features)))
        if reads not in get_args(Source):
            problems.append(unknown("scanner.reads", reads, get_args(Source)))
        raise_all(problems)
        self.extractors, self.share, self.epochs = extractors, share, epochs
        self.features: Features = features
        self.reads: Source = reads
        self.false_alarms = false_alarms
        self.store = None if store is None else Path(store)
        self.watch = watch or iter
        self.figures = ShadowFigures((), ())
        self._shadow: list[_Shadow] = []
        self._network: MetaClassifier | None = None
        self._held: Held | None = None
        self._eyes: list[_Eye] = []
        self._threshold: float | None = None

    def fit(self, held: Held) -> Self:
        """Train shadow models and the meta-classifier, then go to the deployed model.

        Raises:
            ConfigurationError: if the samples are texts; if labels, architecture or model are
                missing; or if nothing is left after the two filters.
        """
        if held.spec.modality != "image":
            raise ConfigurationError(
                f"The scanner mbds judges images only, got {held.spec.modality} inputs. For text "
                "choose meta_shield or strip."
            )
        labels = require_labels(held, self.name)
        if held.architecture is None:
            raise ConfigurationError(
                "The scanner mbds trains shadow models like the deployed one and needs to know its "
                "architecture. Give Held(architecture=…)."
            )
        if len(torch.unique(labels)) < 2:
            raise ConfigurationError(
                "The scanner mbds needs clean samples of two classes or more, got one."
            )
        split = Split(require_inputs(held, self.name), labels)
        self._shadow = self._shadow_features(held, split)
        triggered = torch.cat([one.triggered for one in self._shadow])
        if not bool(triggered.any()) or bool(triggered.all()):
            raise ConfigurationError(
                "No features of both kinds are left after the two filters: the shadow models did "
                "not learn. Give more clean samples, or a Held(training=…) of more epochs."
            )
        return self._learn(held)

    def for_model(self, held: Held) -> Mbds:
        """Return a copy for another deployed model of the same architecture; nothing is trained."""
        if self._network is None:
            raise not_fitted(self.name)
        return copy.copy(self)._deploy(held)

    def again(
        self,
        *,
        reads: Source | None = None,
        extractors: int | None = None,
    ) -> Mbds:
        """Return a copy that learned from the same shadow models, without training them again.

        Args:
            reads: Other models to run inputs through.
            extractors: Only the first so many shadow models (Fig. 5 of the paper).
        """
        if not self._shadow or self._held is None:
            raise not_fitted(self.name)
        other = copy.copy(self)
        other.reads = self.reads if reads is None else reads
        other.extractors = self.extractors if extractors is None else extractors
        is_taught = other.extractors == self.extractors
        return other._deploy(self._held) if is_taught else other._learn(self._held)

    def score(self, judged: Samples) -> Scores:
        """Return the log-odds that each input is triggered."""
        if self._network is None or not self._eyes or self._held is None:
            raise not_fitted(self.name)
        check_form(self._held, judged, self.name)
        odds = []
        for eye in self._eyes:
            maps = eye.see(judged.inputs, self.features)
            with torch.no_grad():
                odds.append(self._network(maps).double())
        return np.asarray(torch.stack(odds).mean(dim=0).numpy(), dtype=np.float64)

    @property
    def threshold(self) -> float:
        """Log-odds above which an input is suspected."""
        if self._threshold is None:
            raise not_fitted(self.name)
        return self._threshold

    def _learn(self, held: Held) -> Self:
        """Train the meta-classifier on the features of the shadow models."""
        first = self._shadow[: self.extractors]
        maps = torch.cat([one.maps for one in first])
        triggered = torch.cat([one.triggered for one in first])
        sizes = torch.tensor([len(one.maps) for one in first])
        source = torch.repeat_interleave(torch.arange(len(first)), sizes)
        if self.features == "evidence":
            maps = mirrored(maps)
            copies = len(maps) // len(triggered)
            triggered, source = triggered.repeat(copies), source.repeat(copies)
        self._network = train_meta_classifier(
            maps, triggered, source=source, epochs=self.epochs, seed=held.seed
        )
        return self._deploy(held)

    def _deploy(self, held: Held) -> Self:
        inputs = require_inputs(held, self.name)
        self._held = held
        self._threshold = EVEN_ODDS
        self._eyes = self._sources(held, inputs)
        try:
            own = self.score(Samples(inputs))
        except RuntimeError as error:
            shape = self._eyes[0].reader.shape
            raise ModelError(
                f"The deployed model has feature maps of shape {shape}, which are not "
                "those of the shadow models. Give the architecture of the deployed model."
            ) from error
        if self.false_alarms is not None:
            self._threshold = conformal_threshold(own, self.false_alarms)
        return self

    def _sources(self, held: Held, inputs: Tensor) -> list[_Eye]:
        """Return the models that inputs are run through."""
        if self.reads == "shadow":
            return [one.eye for one in self._shadow[: self.extractors]]
        eye = _Eye(FeatureMapReader(require_model(held, self.name), inputs))
        if self.features == "evidence":
            eye = eye.among(*eye.reader.read(inputs, self.features))
        return [eye]

    def _shadow_features(self, held: Held, split: Split) -> list[_Shadow]:
        kept, benign, success = [], [], []
        for index in self.watch(range(self.extractors)):
            generator = torch.Generator().manual_seed(index)
            learned, shown = self._parts(split, generator)
            one = shadow_model(held, learned, index, self.store)
            found = one.found
            if shown is not learned:
                found = contaminate(shown, replace(one.setting, share=1.0), generator)
            eye = _Eye(FeatureMapReader(one.model, split.inputs))
            logits, maps = eye.reader.read(found.split.inputs, self.features)
            keep = kept_features(
                logits.argmax(dim=1), found.split.labels, found.poisoned, found.origin,
                one.setting.target_class,
            )  # fmt: skip
            if self.features == "evidence":
                eye = eye.among(logits[~found.poisoned], maps[~found.poisoned])
            chosen = self._thinned(keep, found.poisoned, generator)
            seen = eye.arranged(logits[chosen], maps[chosen])
            kept.append(_Shadow(eye, seen, found.poisoned[chosen]))
            benign.append(one.benign_accuracy)
            success.append(one.attack_success)
        self.figures = ShadowFigures(tuple(benign), tuple(success))
        return kept

    def _parts(self, split: Split, generator: torch.Generator) -> tuple[Split, Split]:
        """Return the samples that a shadow model is trained on, and those that it shows."""
        if self.features != "evidence":
            return split, split
        order = torch.randperm(len(split), generator=generator)
        count = round((1.0 - ASIDE) * len(split))
        return split.take(order[:count]), split.take(order[count:])

    def _thinned(self, keep: Tensor, poisoned: Tensor, generator: torch.Generator) -> Tensor:
        """Return the indices of a random share of the features, at least one of each kind."""
        chosen = []
        for kind in (~poisoned, poisoned):
            members = (keep & kind).nonzero().flatten()
            count = max(1, round(self.share * len(members)))
            order = torch.randperm(len(members), generator=generator)
            chosen.append(members[order[:count]])
        return torch.cat(chosen)


@dataclass(frozen=True)
class _Eye:
    """A model that inputs are run through, with what clean inputs are like there.

    Without the latter, maps are left as they are.
    """

    reader: FeatureMapReader
    clean: CleanEvidence | None = None

    def among(self, logits: Tensor, evidence: Tensor) -> _Eye:
        """Return the same model with clean inputs, to hold others against."""
        return replace(self, clean=CleanEvidence.of(logits, evidence))

    def see(self, inputs: Tensor, features: Features) -> Tensor:
        return self.arranged(*self.reader.read(inputs, features))

    def arranged(self, logits: Tensor, maps: Tensor) -> Tensor:
        return maps if self.clean is None else self.clean.arrange(logits, maps)


@dataclass(frozen=True)
class _Shadow:
    """One shadow model: its kept features, and which are triggered."""

    eye: _Eye
    maps: Tensor
    triggered: Tensor
