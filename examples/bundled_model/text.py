"""Stage 2, the text encoders: learn to read the layout of a scene off its caption, before any picture is drawn."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from captions import caption
from layout import LayoutReader, layout_accuracy, layout_labels, layout_loss
from loop import Schedule, Stage, generator_of, rng_of
from models import TEXT_WIDTH, build_clip, build_t5
from scenes import sample_scene
from tokenizer import build_tokenizer, encode, forget_words

BATCH = 64
FORGOTTEN = 0.04


class TextEncoders(nn.Module):
    """CLIP and T5, each with its reader of the layout (the readers are not part of the pipeline)."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = build_clip()
        self.t5 = build_t5()
        self.clip_reader = LayoutReader(TEXT_WIDTH)
        self.t5_reader = LayoutReader(TEXT_WIDTH)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, 24] to the vector of each caption [B, 128] and the vectors of its tokens [B, 24, 128]."""
        return self.clip(tokens).pooler_output, self.t5(tokens).last_hidden_state

    def read(self, pooled: Tensor, embeddings: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What CLIP's and T5's embeddings say about the layout, as logits of every field."""
        return self.clip_reader(pooled[:, None]), self.t5_reader(embeddings)


def train_text_encoders(folder: Path, *, seed: int, steps: int) -> TextEncoders:
    """Train both encoders on the layout, or resume; returns them ready for the flow, which goes on training them."""
    torch.manual_seed(rng_of(seed, "text weights").getrandbits(63))
    encoders = TextEncoders()
    tokenizer = build_tokenizer()
    validation = {
        "held-out scenes": _validation(seed, tokenizer, held_out_wording=False),
        "held-out wordings": _validation(seed, tokenizer, held_out_wording=True),
    }

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = rng_of(seed, "text", step)
        scenes = [sample_scene(rng) for _ in range(BATCH)]
        tokens = encode(tokenizer, [caption(scene, rng) for scene in scenes])
        tokens = forget_words(tokens, FORGOTTEN, generator_of(seed, "text words", step))
        labels = layout_labels(scenes)
        clip, t5 = (layout_loss(logits, labels) for logits in encoders.read(*encoders(tokens)))
        return clip + t5, {"clip": clip.item(), "t5": t5.item()}

    @torch.no_grad()
    def evaluate(average: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(average, TextEncoders)
        figures = {}
        for name, (tokens, labels) in validation.items():
            for encoder, logits in zip(("clip", "t5"), average.read(*average(tokens)), strict=True):
                figures[f"{encoder} right on {name}"] = layout_accuracy(logits, labels)
        return figures

    average = Stage(
        name="text",
        folder=folder,
        module=encoders,
        optimizers=[torch.optim.AdamW(encoders.parameters(), lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.01)],
        schedule=Schedule(steps=steps),
        loss=loss,
        evaluate=evaluate,
    ).run()
    assert isinstance(average, TextEncoders)
    return average


def _validation(seed: int, tokenizer: PreTrainedTokenizerFast, *, held_out_wording: bool) -> tuple[Tensor, Tensor]:
    rng = rng_of(seed, "text validation", held_out_wording)
    scenes = [sample_scene(rng, held_out=True) for _ in range(256)]
    captions = [caption(scene, rng, held_out=held_out_wording) for scene in scenes]
    return encode(tokenizer, captions), layout_labels(scenes)
