"""CLIP and SigLIP models with random weights, small enough for a test on the CPU."""

import json

import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from tests.tiny_tokenizers import like_clip, like_t5

SIDE = 16
_TOWER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
_VISION = _TOWER | {"image_size": SIDE, "patch_size": 8}


def tiny_clip(folder, seed=0):
    """Write a CLIP model that reads 77 tokens; return its folder."""
    like_clip(folder)
    torch.manual_seed(seed)
    text = _TOWER | {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=8)
    CLIPModel(config).eval().save_pretrained(folder)
    _set_token(folder, pad_token="<|endoftext|>")
    return _with_processor(folder, "CLIPImageProcessor", {"shortest_edge": SIDE}, crop_size=SIDE)


def tiny_siglip(folder, seed=0):
    """Write a SigLIP model that reads 64 tokens; return its folder."""
    like_t5(folder)
    torch.manual_seed(seed)
    text = _TOWER | {"vocab_size": 200, "pad_token_id": 0, "projection_size": 16}
    SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION)).eval().save_pretrained(folder)
    return _with_processor(folder, "SiglipImageProcessor", {"height": SIDE, "width": SIDE})


def _with_processor(folder, kind, size, **settings):
    values = {"image_processor_type": kind, "size": size, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


def _set_token(folder, **tokens):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | tokens))
