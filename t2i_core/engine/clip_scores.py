"""The score of a CLIP or SigLIP model: how well an image fits its prompt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from t2i_core.engine.device import resolve_device
from t2i_core.engine.quiet import silence_libraries
from t2i_core.errors import ModelError
from t2i_core.hashing import digest

VERSION = 1


class ClipScorer:
    """The cosine between a model's embeddings of image and prompt, and how many tokens of the prompt it cut.

    CLIP reads 77 tokens of a prompt and SigLIP 64; what comes after them, the score does not see.
    """

    name = "clip"
    reads_prompt = True

    def __init__(self, folder: Path, kind: str, identity: str, device: str) -> None:
        """Name the model; it is loaded with the first images.

        Args:
            folder: of the model.
            kind: clip or siglip.
            identity: digest of its files.
            device: as `--device`.

        Raises:
            ConfigError: for a device that is not there.
        """
        self.version = digest(["clip", VERSION, identity])
        self._folder, self._kind = folder, kind
        self._device = resolve_device(device)
        self._model: Any = None
        self._tokenizer: Any = None
        self._processor: Any = None

    def score(self, images: Sequence[Any]) -> dict[str, list[float | int]]:
        """Return `score_clip` and `score_clip_cut` of images of the shape of `ScoredImage`."""
        self._load()
        prompts = [image.prompt for image in images]
        limit = self._model.config.text_config.max_position_embeddings
        lengths = [len(ids) for ids in self._tokenizer(prompts, truncation=False).input_ids]
        padding = "max_length" if self._kind == "siglip" else True  # as they were trained
        texts = self._tokenizer(prompts, padding=padding, truncation=True, max_length=limit, return_tensors="pt")
        pictures = [Image.fromarray(image.pixels) for image in images]
        pixels = self._processor(images=pictures, return_tensors="pt")
        with torch.inference_mode():
            found = self._model(**texts.to(self._device), **pixels.to(self._device))
        cosines = (found.image_embeds * found.text_embeds).sum(dim=-1).float().cpu().tolist()
        return {
            "score_clip": [round(cosine, 6) for cosine in cosines],
            "score_clip_cut": [max(0, length - limit) for length in lengths],
        }

    def _load(self) -> None:
        """Load the model from its folder alone, without code of its own.

        Raises:
            ModelError: for files that do not make up a model.
        """
        if self._model is not None:
            return
        silence_libraries()
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, SiglipModel

        here = {"local_files_only": True}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self._folder, **here)
            self._processor = AutoImageProcessor.from_pretrained(self._folder, backend="pil", **here)
            kind = SiglipModel if self._kind == "siglip" else CLIPModel
            model = kind.from_pretrained(self._folder, use_safetensors=True, dtype=torch.float32, **here)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"score: {self._folder} cannot be loaded as a {self._kind} model: {reason}") from error
        self._model = model.eval().to(self._device)
