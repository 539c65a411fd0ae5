"""The check that a part of a pipeline holds the weights of its files: all of them, and no others.

transformers and diffusers fill weights that the files lack with random numbers, and leave out weights that the part has
no place for. Both only log it, and the images are wrong without an error.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from diffusers.loaders import single_file_model, single_file_utils
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from t2i_core.engine.attempt import one_line
from t2i_core.engine.device import is_out_of_memory
from t2i_core.errors import ModelError, UserError, listed

NAMES_SHOWN = 3
# In single files, or made up by diffusers for them; a part without a place for them makes the same images.
WITHOUT_EFFECT = {
    *("text_model.embeddings.position_ids", "embeddings.position_ids"),  # the numbers 0, 1, 2, ... of old versions
    "text_projection.weight",  # of a text encoder whose pipeline does not project
}


@contextmanager
def checking_weights() -> Iterator[None]:
    """Check every part that transformers or diffusers loads within the block.

    A pipeline loads its parts itself and does not pass on what each of them reports. So within the block the two
    `from_pretrained` that all parts come from are replaced by ones that ask for the report, and read it.

    Raises:
        ModelError: within the block, for a part that cannot be loaded, lacks weights or leaves some out; one line.
    """
    with ExitStack() as stack:
        # Without the option, transformers only says that shapes differ, not whose.
        stack.enter_context(_checked(PreTrainedModel, ignore_mismatched_sizes=True))
        stack.enter_context(_checked(ModelMixin))
        stack.enter_context(_quiet(logging.getLogger(ModelMixin.__module__)))
        yield


@contextmanager
def _checked(base: Any, **more: Any) -> Iterator[None]:
    original = vars(base)["from_pretrained"]
    load: Callable[..., Any] = original.__func__

    def from_pretrained(cls: Any, path: Any, *arguments: Any, **options: Any) -> Any:
        try:
            part, report = load(cls, path, *arguments, **options, **more, output_loading_info=True)
        except Exception as error:
            # The libraries raise anything for files that they cannot read.
            if isinstance(error, UserError) or is_out_of_memory(error):
                raise
            raise ModelError(_why_not(Path(path), cls.__name__, error)) from error
        check_report(part, Path(path), report)
        return part

    base.from_pretrained = classmethod(from_pretrained)
    try:
        yield
    finally:
        base.from_pretrained = original


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Let only errors through: the error of `check_report` says in a line what the warnings list name by name."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_report(part: nn.Module, folder: Path, report: Mapping[str, Any]) -> None:
    """Refuse a part by the loading report of its library, which leaves tied weights and those of no effect out.

    Raises:
        ModelError: naming the folder, how many weights are missing, left over or of another shape, and the first.
    """
    missing, unused = report["missing_keys"], _unused(part, folder, report["unexpected_keys"])
    shapes = [f"{name}: {list(found)} for {list(wanted)}" for name, found, wanted in report["mismatched_keys"]]
    _refuse(folder, type(part).__name__, missing, unused, shapes)


def _refuse(path: Path, name: str, missing: Collection[str], unused: Collection[str], shapes: Collection[str]) -> None:
    """Raise what is wrong with the weights of a part of class `name`; return where nothing is."""
    faults = []
    if shapes:
        faults.append(f"{len(shapes)} of another shape than in {name} ({listed(sorted(shapes), NAMES_SHOWN)})")
    if missing:
        faults.append(f"{len(missing)} of {name} missing from its files ({listed(sorted(missing), NAMES_SHOWN)})")
    if unused:
        faults.append(f"{len(unused)} in its files without a place in {name} ({listed(sorted(unused), NAMES_SHOWN)})")
    if not faults:
        return
    raise ModelError(
        f"{path}: weights: {', and '.join(faults)}; images would be wrong: check its config.json, or "
        "download or convert the model again"
    )


@contextmanager
def checking_file(path: Path, name: str, values: int | None = None) -> Iterator[None]:
    """Check the part of class `name` that diffusers loads from a single file within the block.

    diffusers converts the names, and then brings each tensor that has a place to it: what is missing stays without a
    value, and what is left over is logged. So within the block that last step is replaced by one that compares first.

    Args:
        path: the file.
        name: the class.
        values: how many values of the file are the part's. Names that diffusers does not know are lost in the
            conversion without a word, and then the part has fewer.

    Raises:
        ModelError: within the block, for a part that cannot be loaded, lacks weights or leaves some out; one line.
    """
    with ExitStack() as stack:
        for module in (single_file_model, single_file_utils):
            load = _comparing(module.load_model_dict_into_meta, path, values)
            stack.enter_context(_replaced(module, "load_model_dict_into_meta", load))
        stack.enter_context(_replaced(single_file_model, "_should_convert_state_dict_to_diffusers", _has_other_names))
        stack.enter_context(_quiet(logging.getLogger(single_file_model.__name__)))
        try:
            yield
        except Exception as error:
            # The libraries raise anything for files that they cannot read.
            if isinstance(error, UserError) or is_out_of_memory(error):
                raise
            raise ModelError(f"{path}: {name} cannot be loaded: {one_line(error)}") from error


@contextmanager
def _replaced(module: Any, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, replacement)
    try:
        yield
    finally:
        setattr(module, name, original)


def _comparing(load: Callable[..., Any], path: Path, values: int | None) -> Callable[..., Any]:
    def load_compared(part: nn.Module, weights: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
        _compare(part, path, weights, values)
        return load(part, weights, *arguments, **options)

    return load_compared


def _has_other_names(places: Mapping[str, Any], weights: Mapping[str, Any]) -> bool:
    """Return whether the names in a file are not those of diffusers.

    diffusers itself converts the names where a single one is missing or left over, and fails without saying which.
    """
    return not (places.keys() <= weights.keys() or weights.keys() <= places.keys())


def _compare(part: nn.Module, path: Path, weights: Mapping[str, Any], values: int | None) -> None:
    """Refuse weights that are not those of the part, or that it would take for something else."""
    places = part.state_dict()
    shapes = [
        f"{name}: {list(tensor.shape)} for {list(places[name].shape)}"
        for name, tensor in weights.items()
        if name in places and not hasattr(tensor, "quant_type") and tensor.shape != places[name].shape
    ]
    # A quantized tensor is bytes: only a linear layer knows how to read them.
    linear = {f"{name}.weight" for name, module in part.named_modules() if isinstance(module, nn.Linear)}
    if misplaced := [name for name, tensor in weights.items() if hasattr(tensor, "quant_type") and name not in linear]:
        names = listed(sorted(misplaced), NAMES_SHOWN)
        raise ModelError(f"{path}: {len(misplaced)} quantized weights outside linear layers ({names})")
    missing = places.keys() - weights.keys()
    name = type(part).__name__
    _refuse(path, name, missing, weights.keys() - places.keys() - WITHOUT_EFFECT, shapes)
    taken = sum(tensor.numel() for tensor in places.values())
    if values is not None and values != taken:
        raise ModelError(
            f"{path}: weights: it holds {values:,} values, and {name} has a place for {taken:,}: diffusers does not "
            "know some of its tensors, and images would be wrong; name a pipeline that this file was made for"
        )


def _unused(part: nn.Module, folder: Path, unexpected: Collection[str]) -> list[str]:
    """Return the weights that the part should have used.

    Files of transformers may hold a larger model, of which the pipeline takes one part: a language model without its
    head, a text encoder without the vision tower beside it. Their config.json says so in `architectures`. Then weights
    outside the modules of the part are no fault.
    """
    if not unexpected or not isinstance(part, PreTrainedModel):
        return sorted(unexpected)
    # Not `part.config`: of a larger model that is the configuration of the part.
    architectures = json.loads((folder / "config.json").read_text("utf-8")).get("architectures")
    if not architectures or type(part).__name__ in architectures:
        return sorted(unexpected)
    prefix = f"{part.base_model_prefix}."
    own = {name for name, _ in part.named_children()} | {name for name, _ in part.named_parameters(recurse=False)}
    return sorted(name for name in unexpected if name.removeprefix(prefix).partition(".")[0] in own)


def _why_not(folder: Path, name: str, error: Exception) -> str:
    """Return the line for a part that could not be loaded; it names a broken file, which the libraries do not."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as fault:
            return f"{file}: cannot be read ({one_line(fault)}); download or copy it again"
    return f"{folder}: {name} cannot be loaded: {one_line(error)}"
