"""The arguments that a diffusers pipeline takes, read from the source of the installed diffusers."""

import ast
import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from t2i_core.errors import ModelError
from t2i_core.models.diffusers_source import defaults_of, diffusers_folder, literal, parse

# Parts of the class names of pipelines that take more than text, or make something other than an image. The parameters
# do not tell: many of these declare `image=None` and then fail without it.
OTHER_WORDS = re.compile(
    "Img2Img|Image2Image|ImageToImage|I2I|Inpaint|Control|Video|I2V|T2V|Edit|Upscale|SuperResolution|Depth2Img|Adapter"
    "|Pix2Pix|Fill|Prior|Decoder|Refiner|Layered|ImageVariation|VisualCloze|Inversion|Audio|3D|ShapE|Gemma|Onnx|GLIGEN"
)
# Parameters that only calls for video and sound have.
OTHER_PARAMETERS = {
    *("num_frames", "frames", "video_length", "num_videos_per_prompt", "video"),
    *("audio", "audio_length_in_s", "audio_duration"),
}
IMAGE_PARAMETERS = {"height", "num_images_per_prompt"}
# Settings of a scheduler by which some pipelines decide what they pass to its `set_timesteps`.
ASKED = ("use_flow_sigmas", "use_dynamic_shifting")


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of a pipeline: of `__call__` with their defaults, those without a default, and of `__init__`."""

    call: Mapping[str, Any]
    required: frozenset[str]
    init: frozenset[str]


def call_defaults(pipeline_class: str) -> dict[str, Any]:
    """Return {parameter: default} of the pipeline's `__call__`; Ellipsis for no default, or one that is no literal.

    Raises:
        ModelError: if the installed diffusers has no such pipeline.
    """
    return dict(_signature(pipeline_class).call)


def init_parameters(pipeline_class: str) -> set[str]:
    """Return the names of the components and settings that the pipeline's `__init__` takes.

    Raises:
        ModelError: if the installed diffusers has no such pipeline.
    """
    return set(_signature(pipeline_class).init)


@dataclass(frozen=True, slots=True)
class TimestepsCall:
    """How a pipeline's call has its scheduler set the timesteps.

    passes: the arguments of `set_timesteps` beside the number of steps and the device.
    asks: those of `ASKED` that the call looks at before.
    arrays: whether the `sigmas` it passes, if any, are a NumPy array, which not every scheduler makes of a list itself.
    """

    passes: frozenset[str]
    asks: frozenset[str]
    arrays: bool


@lru_cache(maxsize=64)
def timesteps_call(pipeline_class: str) -> TimestepsCall:
    """Return what the pipeline's `__call__` passes to the `set_timesteps` of its scheduler.

    Raises:
        ModelError: if the installed diffusers has no such pipeline.
    """
    function = _method(_find_class(pipeline_class), "__call__")
    nodes = list(ast.walk(function)) if function is not None else []
    # Most calls have the parameters `sigmas` and `timesteps`, which this tool leaves at None: they are passed where the
    # call sets them itself.
    assigned = [
        (target.id, node)
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    calls = [
        node
        for node in nodes
        if isinstance(node, ast.Call) and _name(node.func) in ("retrieve_timesteps", "set_timesteps")
    ]
    first = min((call.lineno for call in calls), default=0)
    assigned = [(name, node) for name, node in assigned if node.lineno < first]
    passes = {name for name, _ in assigned if name in ("timesteps", "sigmas", "mu")}
    passes |= {keyword.arg for call in calls for keyword in call.keywords if keyword.arg} - {
        *("num_inference_steps", "device", "timesteps", "sigmas")
    }
    constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
    values = [node.value for name, node in assigned if name == "sigmas" and not isinstance(node.value, ast.Constant)]
    arrays = all("np" in map(_name, _expressions(value)) for value in values)
    return TimestepsCall(frozenset(passes), frozenset(name for name in ASKED if name in constants), arrays)


def check_text_to_image(pipeline_class: str, name: str) -> None:
    """Refuse a pipeline that does not make images from text alone; `name` is the model's, for the message.

    Raises:
        ModelError: in one line that says why.
    """
    fix = "choose a text-to-image model"
    if word := OTHER_WORDS.search(pipeline_class):
        raise ModelError(f"{name}: {pipeline_class} is not a text-to-image pipeline ({word[0]}); {fix}")
    try:
        signature = _signature(pipeline_class)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None
    if "prompt" not in signature.call:
        why = "its call takes no prompt"
    elif extra := sorted(signature.required - {"prompt"}):
        why = f"its call needs {', '.join(extra)}"
    elif extra := sorted(OTHER_PARAMETERS & signature.call.keys()):
        why = f"its call takes {', '.join(extra)}"
    elif "num_inference_steps" not in signature.call:
        why = "its call takes no num_inference_steps"
    elif not IMAGE_PARAMETERS & signature.call.keys():
        why = "its call makes no images"
    elif missing := sorted({"height", "width"} - signature.call.keys()):
        why = f"its call takes no {' and no '.join(missing)}"
    else:
        return
    raise ModelError(f"{name}: {pipeline_class} is not a text-to-image pipeline ({why}); {fix}")


@lru_cache(maxsize=64)
def _signature(pipeline_class: str) -> Signature:
    definition = _find_class(pipeline_class)
    call = _method(definition, "__call__")
    defaults = {name: literal(node) for name, node in defaults_of(call)}
    required = frozenset(name for name, node in defaults_of(call) if node is None)
    init = frozenset(name for name, _ in defaults_of(_method(definition, "__init__")))
    return Signature(defaults, required, init)


def _find_class(name: str) -> ast.ClassDef:
    marker = f"\nclass {name}(".encode()
    for path in sorted((diffusers_folder() / "pipelines").rglob("pipeline_*.py")):
        source = path.read_bytes()
        if marker not in source:  # parsing takes 20 ms a file, this search 0.1 ms
            continue
        for node in parse(source).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node
    version = importlib.metadata.version("diffusers")
    raise ModelError(f"the installed diffusers {version} has no pipeline {name}; upgrade it, or choose another model")


def _method(definition: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    """Return the class's own method, else that of its first base that is a pipeline."""
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    for base in definition.bases:
        if isinstance(base, ast.Name) and base.id.endswith("Pipeline") and base.id != "DiffusionPipeline":
            return _method(_find_class(base.id), name)
    return None


def _expressions(node: ast.expr) -> list[ast.expr]:
    return [part for part in ast.walk(node) if isinstance(part, ast.expr)]


def _name(node: ast.expr) -> str | None:
    """Return the last name of an expression such as `self.scheduler.set_timesteps`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
