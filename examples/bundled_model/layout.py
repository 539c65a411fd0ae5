"""The auxiliary task of the text encoders: read off a caption what is where.

FLUX's text encoders come trained on much of the internet. Ours start from nothing, and the flow's loss alone teaches
them slowly: a wrong object changes few pixels of a noisy picture. So they first learn to name the layout of the scene,
and keep on naming it while the flow is trained. The readers are thrown away afterwards.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scenes import Relation, Scene
from world import COLOURS, GROUNDS, OBJECTS, PLAIN, SHAPES, SKIES, Thing

SLOTS = ("alone", "left", "right", "top", "bottom", "middle", "sides")
_NOTHING = ""
_SKIES = (_NOTHING, *SKIES)
_GROUNDS = (_NOTHING, *GROUNDS)
_PLAINS = (_NOTHING, *PLAIN)
_THINGS = (_NOTHING, *OBJECTS, *SHAPES)
_COLOURS = (_NOTHING, *COLOURS)
# The classes of every field: three of the background, then name and colour of every slot.
_FIELDS = (_SKIES, _GROUNDS, _PLAINS, *((_THINGS, _COLOURS) * len(SLOTS)))


def layout_labels(scenes: list[Scene]) -> Tensor:
    """Class numbers of every field, int64 [B, 17]."""
    return torch.tensor([_labels(scene) for scene in scenes])


def _labels(scene: Scene) -> list[int]:
    nothing = Thing(_NOTHING)
    first, second = scene.first, scene.second or nothing
    slots = {
        Relation.ALONE: {"alone": first},
        Relation.LEFT_OF: {"left": first, "right": second},
        Relation.ABOVE: {"top": first, "bottom": second},
        Relation.BETWEEN: {"middle": first, "sides": second},
        Relation.KITE_SURFING: {"bottom": first, "top": second},
    }[scene.relation]
    backdrop = scene.backdrop
    values = [backdrop.sky, backdrop.ground, backdrop.plain]
    for slot in SLOTS:
        values.extend(slots.get(slot, nothing))
    return [field.index(value) for field, value in zip(_FIELDS, values, strict=True)]


class LayoutReader(nn.Module):
    """Reads every field from a sequence of text embeddings with a learned query, as the transformer's attention will.

    For CLIP, of which FLUX takes one vector, the sequence has length one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(_FIELDS), width) / width**0.5)
        self.heads = nn.ModuleList(nn.Linear(width, len(field)) for field in _FIELDS)

    def forward(self, embeddings: Tensor) -> list[Tensor]:
        """Embeddings [B, T, width] to the logits of every field, [B, classes] each."""
        attention = (embeddings @ self.queries.T).softmax(dim=1)  # [B, T, fields]
        pooled = attention.transpose(1, 2) @ embeddings  # [B, fields, width]
        return [head(pooled[:, number]) for number, head in enumerate(self.heads)]


def layout_loss(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy, summed over the fields."""
    return torch.stack([cross_entropy(field, labels[:, number]) for number, field in enumerate(logits)]).sum()


def layout_accuracy(logits: list[Tensor], labels: Tensor) -> float:
    """The share of captions of which every field is read right."""
    read = torch.stack([field.argmax(dim=1) for field in logits], dim=1)
    return (read == labels).all(dim=1).float().mean().item()
