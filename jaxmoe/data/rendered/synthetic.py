"""TFDS builders of the embedded datasets, which are rendered: motions, shapes, scenes."""

import os
from collections.abc import Iterable, Iterator

import numpy as np

from jaxmoe.choices import DomainCue
from jaxmoe.data.builders.clip_builder import ClipBuilder, Dense, PlannedClip, Progress
from jaxmoe.data.builders.prepare import cache_folder, fingerprint
from jaxmoe.data.listing.listing import SPLITS
from jaxmoe.data.rendered.actions import CLASSES, render_actions
from jaxmoe.data.rendered.domains import COLUMN, check_domains, label_in, seen_in
from jaxmoe.data.rendered.shapes import SHAPES, render_shapes

_RENDERED_AT_ONCE = 64
_SHAPES_IN_A_SCENE = 4

PLACES = {
    "round": ("disc", "ring", "star", "half_disc", "crescent"),
    "straight": ("square", "triangle", "plus", "bar", "corner"),
}
"""The places of rendered scenes, and the shapes that are usual there."""


class _Synthetic(ClipBuilder, skip_registration=True):
    """Rendered clips. Their kinds, the classes as a rule, go round in turn, then the domains.

    A clip depends on (seed, split, its number in the split, `sizes`, `kinds`, `domains` and their
    cue): asking for more clips of one split changes no other clip.
    """

    KINDS: int  # all that there are

    def __init__(
        self,
        classes: tuple[str, ...],
        sizes: dict[str, int],
        kinds: int,
        *,
        train: int,
        validation: int,
        test: int,
        seed: int,
        domains: int = 1,
        domain_cue: DomainCue = "tint",
        cache: str | os.PathLike | None = None,
        progress: Progress | None = None,
    ):
        check_domains(domains, domain_cue, len(SHAPES) if self.DENSE else kinds)
        counts = dict(zip(SPLITS, (train, validation, test), strict=True))
        for split, count in counts.items():
            if count < 1:
                raise ValueError(f"data.{split}_clips: {count}; a split has at least 1 clip")
        if seed < 0:
            raise ValueError(f"data.seed: {seed}; a seed is at least 0")
        self._sizes = sizes
        self._domains, self._cue = domains, domain_cue
        # Defaults are not named: clips that were prepared before these fields existed stay valid.
        named = {} if domains == 1 else {"domains": domains}
        named |= {} if domains == 1 or domain_cue == "tint" else {"domain_cue": domain_cue}
        named |= {} if kinds == self.KINDS else {"classes": kinds}
        plan: dict[str, list[PlannedClip]] = {}
        index = 0
        for number, (split, count) in enumerate(counts.items()):
            plan[split] = []
            for i in range(count):
                key = (seed, number, i)
                shown, domain = i % kinds, i // kinds % domains
                label = -1 if self.DENSE else label_in(domain, shown, kinds)
                clip = PlannedClip(index, f"{split}/{seed}-{i}", label, (shown, domain, key))
                plan[split].append(clip)
                index += 1
        super().__init__(
            plan=plan,
            classes=classes,
            codec="raw",
            fingerprint=fingerprint(
                builder=self.name,
                version=str(self.VERSION),
                **sizes,
                **named,
                counts=counts,
                seed=seed,
            ),
            data_dir=cache_folder(cache),
            progress=progress,
            columns={
                clip.path: self.describe(*clip.source[:2])
                for clips in plan.values()
                for clip in clips
            },
        )

    def describe(self, kind: int, domain: int) -> dict[str, str]:
        """Columns of a clip of this kind and domain."""
        del kind
        return {} if self._domains == 1 else {COLUMN: str(domain)}

    def draw(
        self, kinds: np.ndarray, keys: list[tuple[int, ...]]
    ) -> Iterable[np.ndarray] | Iterable[Dense]:
        """Yields the frames `uint8[T, H, W, 3]` of each clip."""
        raise NotImplementedError

    def render(self, clips: list[PlannedClip]) -> Iterator[np.ndarray | Dense]:
        """Renders the clips in order, some at a time."""
        for start in range(0, len(clips), _RENDERED_AT_ONCE):
            part = clips[start : start + _RENDERED_AT_ONCE]
            kinds, domains, keys = zip(*(clip.source for clip in part), strict=True)
            drawn = self.draw(np.array(kinds), list(keys))
            for clip, domain in zip(drawn, domains, strict=True):
                yield self.seen(clip, domain)

    def seen(self, drawn: np.ndarray | Dense, domain: int) -> np.ndarray | Dense:
        """Returns what was drawn as it looks in a domain."""
        return seen_in(drawn, domain, self._domains, self._cue)


def _meanings(shown: tuple[str, ...], classes: int, domains: int = 1) -> tuple[str, ...]:
    """Names of the first classes: what is shown, or numbers where domains give it its meaning."""
    if not 2 <= classes <= len(shown):
        raise ValueError(f"data.classes: {classes}; expected 2 to {len(shown)}")
    return shown[:classes] if domains == 1 else tuple(f"meaning_{i}" for i in range(classes))


class SyntheticActions(_Synthetic, skip_registration=True):
    """Ten motions of a textured blob over a moving background (`jaxmoe.data.rendered.actions`).

    Args of the constructor: `frames` per clip; `size`, height and width in pixels; `classes`, the
    number of motions, from the first; `train`, `validation`, `test`, clips per split, at least 1
    each; `seed`; `domains`, in each of which a motion has another meaning, and `domain_cue`, which
    tells them (`data.rendered.domains`); `cache`, the folder for prepared data; `progress(done,
    total)`. Raises `ValueError` naming the field.
    """

    name = "synthetic_actions"
    KINDS = len(CLASSES)

    def __init__(self, *, frames: int, size: int, classes: int = len(CLASSES), **fields):
        render_actions(np.zeros(0, np.int64), [], frames, size)  # checks frames and size
        names = _meanings(CLASSES, classes, fields.get("domains", 1))
        super().__init__(names, {"frames": frames, "size": size}, classes, **fields)

    def draw(self, kinds: np.ndarray, keys: list[tuple[int, ...]]) -> Iterable[np.ndarray]:
        """Clips that show each class's motion."""
        return render_actions(kinds, keys, **self._sizes)


class SyntheticShapes(_Synthetic, skip_registration=True):
    """Ten shapes, one in each image, told apart by their outline (`jaxmoe.data.rendered.shapes`).

    Args of the constructor: those of `SyntheticActions` without `frames`.
    """

    name = "synthetic_shapes"
    KINDS = len(SHAPES)

    def __init__(self, *, size: int, classes: int = len(SHAPES), **fields):
        render_shapes(np.zeros((0, 1), np.int64), [], size)  # checks size
        names = _meanings(SHAPES, classes, fields.get("domains", 1))
        super().__init__(names, {"size": size}, classes, **fields)

    def draw(self, kinds: np.ndarray, keys: list[tuple[int, ...]]) -> Iterable[np.ndarray]:
        """Images of each class's shape, as clips of one frame."""
        return render_shapes(kinds[:, None], keys, **self._sizes)[0][:, None]


class SyntheticScenes(_Synthetic, skip_registration=True):
    """Several shapes in an image, and a label for each pixel: the ground, or a shape.

    A scene is of one of two places, told by the column `place`: the shapes of the one are round, as
    a rule, those of the other straight; one in six is of the other kind. In each domain a shape has
    another label. Args of the constructor: those of `SyntheticShapes`, without `classes`.
    """

    name = "synthetic_scenes"
    KINDS = len(PLACES)
    DENSE = True

    def __init__(self, *, size: int, **fields):
        render_shapes(np.zeros((0, 1), np.int64), [], size)  # checks size
        names = _meanings(SHAPES, len(SHAPES), fields.get("domains", 1))
        super().__init__(("ground", *names), {"size": size}, self.KINDS, **fields)

    def describe(self, kind: int, domain: int) -> dict[str, str]:
        """Where the scene is, and its domain where there are several."""
        return {"place": tuple(PLACES)[kind], **super().describe(kind, domain)}

    def seen(self, drawn: Dense, domain: int) -> Dense:
        """Returns a scene as it looks in a domain, shapes labelled with what they mean there."""
        meaning = 1 + label_in(domain, np.arange(len(SHAPES)), len(SHAPES))  # 0 is the ground
        labels = np.concatenate([[0], meaning]).astype(np.uint8)
        return Dense(super().seen(drawn.frames, domain), labels[drawn.label_map])

    def draw(self, kinds: np.ndarray, keys: list[tuple[int, ...]]) -> Iterable[Dense]:
        """Scenes of these places."""
        shapes = []
        for kind, key in zip(kinds, keys, strict=True):
            rng = np.random.default_rng([*key, 1])  # the shapes themselves are drawn from `key`
            usual = np.array([SHAPES.index(name) for name in tuple(PLACES.values())[kind]])
            others = np.setdiff1d(np.arange(len(SHAPES)), usual)
            strange = rng.random(_SHAPES_IN_A_SCENE) < 1 / 6
            drawn = np.where(
                strange,
                rng.choice(others, _SHAPES_IN_A_SCENE),
                rng.choice(usual, _SHAPES_IN_A_SCENE),
            )
            shapes.append(drawn)
        images, maps = render_shapes(np.array(shapes), keys, **self._sizes)
        for image, label_map in zip(images, maps, strict=True):
            yield Dense(image[None], label_map)
