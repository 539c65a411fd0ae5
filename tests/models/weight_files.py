"""Files of weights for tests of what their headers tell: each tensor is zeros."""

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path

Shapes = Mapping[str, tuple[int, ...]]

# The least that tells each kind of file apart.
ENCODER = {"cond_stage_model.transformer.text_model.x": (2,)}
VAE = {"first_stage_model.decoder.conv_in.weight": (2, 2)}
UNET = {
    "model.diffusion_model.input_blocks.0.0.weight": (4, 4, 3, 3),
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 768),
}
SDXL = {
    **{"model.diffusion_model.label_emb.0.0.weight": (2, 2), "conditioner.embedders.1.model.x": (2,)},
    "conditioner.embedders.0.transformer.text_model.x": (2,),
}
FLUX = {"double_blocks.0.img_attn.norm.key_norm.scale": (2,), "img_in.weight": (8, 64)}
GUIDED = {"guidance_in.in_layer.weight": (2, 2)}
SD3 = {"joint_blocks.0.context_block.adaLN_modulation.1.bias": (2,)}


def whole(denoiser: Shapes, *others: Shapes) -> Shapes:
    """Return the tensors of a file with several parts, those of the denoiser with the prefix."""
    prefix = "model.diffusion_model."
    tensors = {prefix + name.removeprefix(prefix): shape for name, shape in denoiser.items()}
    return {**tensors, **{name: shape for other in others for name, shape in other.items()}}


def safetensors(shapes: Shapes) -> bytes:
    """Return a safetensors file."""
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + 4 * prod(shape)]}
        end += 4 * prod(shape)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def gguf(shapes: Shapes) -> bytes:
    """Return a GGUF file, with a value of each kind before the tensors."""
    values = [
        _text("general.architecture") + struct.pack("<I", 8) + _text("flux"),
        _text("number") + struct.pack("<Id", 12, 0.5),
        _text("flag") + struct.pack("<I?", 7, True),
        _text("numbers") + struct.pack("<IIQ3I", 9, 4, 3, 1, 2, 3),
        _text("texts") + struct.pack("<IIQ", 9, 8, 2) + _text("a") + _text("bc"),
    ]
    tensors, offset = [], 0
    for name, shape in shapes.items():
        tensors.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], 0, offset))
        offset += 4 * prod(shape)
    start = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    return start + b"".join([*values, *tensors]) + bytes(offset + 32)


def write(path: Path, data: bytes) -> str:
    """Write a file and return its path as a user would name it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
