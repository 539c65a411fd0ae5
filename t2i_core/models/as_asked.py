"""The ways in which diffusers pipelines change a request, and the arguments that keep them from it.

The tables follow the source of diffusers 0.42. `tests/models/test_as_asked.py` reads the installed diffusers, and fails
for a parameter or a change of size that neither this module nor the test knows.

Three changes stay. They have no switch, and the models were trained with them: PixArt, Sana, Lumina and IF lower the
case of a prompt; Kandinsky 5 and PRX mend its HTML and Unicode (`ftfy`); some pipelines put a template around a prompt,
or add a negative prompt of their own.
"""

import math
from collections.abc import Container
from typing import Any

from t2i_core.spec import PIXELS_VERSION, Sampling

# Parameters of the call by which pipelines change a request, and the values that turn this off.
SWITCHES: dict[str, Any] = {
    "use_resolution_binning": False,  # Sana, PixArt, PRX, HunyuanDiT: another size, then a resize
    "complex_human_instruction": None,  # Sana: asks its language model to enhance the prompt
    "clean_caption": False,  # PixArt, Sana, Lumina, IF: takes out links, numbers, Chinese and more
    "skip_text_cleaning": True,  # PRX: likewise
    "enable_prompt_rewrite": False,  # LongCat: a language model rewrites the prompt
    "use_pe": False,  # ERNIE-Image: likewise
    "prompt_upsampling": False,  # Ideogram 4: likewise
    "caption_upsample_temperature": None,  # FLUX.2: likewise
    "use_input_image_size_as_output": False,  # OmniGen
    "_auto_resize": False,  # FLUX Kontext: resizes an input image
}
# The parameter of FLUX Kontext that has the number of pixels; only the ratio is taken from height and width.
AREA = "max_area"

# Classes that return tensors ("pt") with pixels in -1..1, which their safety checker has not seen; arrays ("np") are
# right.
WRONG_TENSORS = ("IFPipeline", "Kandinsky3Pipeline", "KandinskyCombinedPipeline", "KandinskyV22CombinedPipeline")

# Class -> this project's own way of turning a spec into pixels, where it is another than `PIXELS_VERSION`.
PIXELS_VERSIONS: dict[str, int] = {
    "PRXPipeline": 2,  # 1: the prompt was cleaned
    **dict.fromkeys(WRONG_TENSORS, 2),  # 1: the tensors were taken, -1..1 for 0..1
}

# Class -> latents along each side of a token, at the VAE's usual scale; only for classes whose configuration does not
# say it. The pipeline rounds a side of an image that is no multiple of a token's side, or its call ends with an error.
LATENTS_A_TOKEN: dict[str, int] = {
    **dict.fromkeys(("FluxKontextPipeline", "Flux2KleinKVPipeline", "HiDreamImagePipeline", "Krea2Pipeline"), 2),
    **dict.fromkeys(("LongCatImagePipeline", "OvisImagePipeline", "ZImageOmniPipeline", "BriaPipeline"), 2),
    **dict.fromkeys(("BriaFiboPipeline", "BriaFibo2Pipeline", "ErnieImagePipeline", "Ideogram4Pipeline"), 2),
    "Cosmos2TextToImagePipeline": 2,
    **dict.fromkeys(("GlmImagePipeline", "QwenImage21Pipeline"), 4),
    **dict.fromkeys(("Kandinsky3Pipeline", "KandinskyCombinedPipeline", "KandinskyV22CombinedPipeline"), 8),
}

_KANDINSKY_5_SIZES = ((1024, 1024), (640, 1408), (1408, 640), (768, 1280), (1280, 768), (896, 1152), (1152, 896))
_HIDREAM_PIXELS = 1024 * 1024


def switches(parameters: Container[str], sampling: Sampling) -> dict[str, Any]:
    """Return the arguments that keep a pipeline, whose call takes `parameters`, to what `sampling` asks for."""
    arguments = {name: value for name, value in SWITCHES.items() if name in parameters}
    if AREA in parameters:
        arguments[AREA] = sampling.height * sampling.width
    return arguments


def pixels_version(pipeline_class: str) -> int:
    """Return the version of this project's own way of turning a spec into pixels, which is a part of every key."""
    return PIXELS_VERSIONS.get(pipeline_class, PIXELS_VERSION)


def generated_size(pipeline_class: str, width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) that a pipeline generates if asked for others, where nothing turns this off."""
    if pipeline_class == "Kandinsky5T2IPipeline" and (width, height) not in _KANDINSKY_5_SIZES:
        return min(_KANDINSKY_5_SIZES, key=lambda size: abs(size[0] / size[1] - width / height))
    if pipeline_class == "HiDreamImagePipeline":
        scale = math.sqrt(_HIDREAM_PIXELS / (width * height))
        return int(width * scale // 16 * 16), int(height * scale // 16 * 16)
    return width, height
