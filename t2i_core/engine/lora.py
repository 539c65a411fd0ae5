"""LoRA files on a pipeline: each is loaded as diffusers reads it, and what of the file was used is known.

diffusers leaves out what it has no place for, and at most logs it: modules that the model does not have, another
trainer's text encoder, `dora_scale`, factors of another method. So each tensor of a file carries its name with it,
through all that diffusers does to it, and what was used is what arrives in a parameter of the pipeline.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import safetensors.torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from t2i_core.engine.attempt import one_line
from t2i_core.engine.device import is_out_of_memory
from t2i_core.errors import ModelError, listed

log = logging.getLogger(__name__)

NAMES_SHOWN = 3
# Prefixes of trainers before the model's own module names; diffusers knows them only for some families.
FOREIGN_PREFIXES = ("", "diffusion_model.", "model.diffusion_model.", "base_model.model.", "lora_transformer.")


class NamedTensor(Tensor):  # type: ignore[misc]
    """A tensor of a file, or one made from such tensors. `names`: the names in the file that it comes from."""

    names: frozenset[str] = frozenset()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, and give the names of its arguments to its results."""
        kwargs = kwargs or {}
        result = super().__torch_function__(func, types, args, kwargs)
        names = _names_in([*args, *kwargs.values()])
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, NamedTensor):
                value.names = value.names | names
        return result


def add_loras(pipeline: Any, adapters: Sequence[tuple[str, float]], *, partial: bool) -> None:
    """Load each LoRA, a pair of its file and weight, and turn all of them on.

    They are not fused into the weights, which would change the last bits of images that have the same key.

    Args:
        partial: whether a file may be used in part.

    Raises:
        ModelError: a file does not fit the pipeline, or not all of it was used; one line that names what was left.
    """
    names = [f"lora{i}" for i in range(len(adapters))]
    for name, (file, _) in zip(names, adapters, strict=True):
        if not hasattr(pipeline, "load_lora_weights"):
            raise ModelError(f"{type(pipeline).__name__} takes no LoRA; leave --lora out")
        _add(pipeline, file, name, partial)
    if names:
        pipeline.set_adapters(names, [weight for _, weight in adapters])


def _add(pipeline: Any, file: str, name: str, partial: bool) -> None:
    present = _names_of(file)
    own_names = _own_names(present, pipeline)
    widths = _widths(pipeline)
    used, reason = _load(pipeline, file, name, {})
    if own_names and _left_out(present, used):
        used, reason = _load(pipeline, file, name, own_names)
    left = _left_out(present, used)
    found = _widths(pipeline)
    # diffusers makes FLUX wider for a LoRA of a wider model, and then every image fails.
    changed = [module for module, width in widths.items() if found.get(module, width) != width]
    if changed:
        reason = f"it is for a model of another width, {found[changed[0]]} for {widths[changed[0]]} in {changed[0]}"
    if changed or not used:
        why = reason or f"there are no such modules: {listed(left, NAMES_SHOWN)}"
        raise ModelError(
            f"{file}: does not fit {type(pipeline).__name__}: {why}; use a LoRA that was trained for this model, and "
            "convert it to diffusers' own naming"
        )
    share, names = f"{len(present) - len(left)} of {len(present)} tensors used", listed(left, NAMES_SHOWN)
    if left and not partial:
        raise ModelError(
            f"{file}: {share} by {type(pipeline).__name__}, left out: {names}; images would lack a part of it: "
            "convert the file, or accept that with --lora-partial"
        )
    if left:
        log.warning("lora      %s: %s; left out: %s", file, share, names)
    else:
        log.info("lora      %s: all %d tensors used", file, len(present))


def _names_of(file: str) -> list[str]:
    try:
        with safe_open(file, framework="pt") as opened:
            return sorted(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: cannot be read ({one_line(error)}); download or copy it again") from error


def _load(pipeline: Any, file: str, name: str, renamed: Mapping[str, str]) -> tuple[frozenset[str], str]:
    """Load a LoRA under `name`, in place of one that has it. `renamed`: other names for diffusers to read.

    Return the names in the file that were used, and why there are none if that is known.
    """
    if name in {n for names in pipeline.get_list_adapters().values() for n in names}:
        pipeline.delete_adapters(name)
    reason = ""
    with _naming_tensors(renamed), _silence():
        try:
            pipeline.load_lora_weights(file, adapter_name=name)
        except Exception as error:
            # diffusers and peft raise anything for names that they do not expect.
            if is_out_of_memory(error):
                raise
            reason = one_line(error)
    used = frozenset[str]().union(*(_take_names(module) for module in pipeline.components.values()))
    return (frozenset() if reason else used), reason


def _widths(pipeline: Any) -> dict[str, int]:
    """Return the number of inputs of every linear layer."""
    return {
        f"{part}.{name}": module.in_features
        for part, component in pipeline.components.items()
        if isinstance(component, nn.Module)
        for name, module in component.named_modules()
        if hasattr(module, "in_features") and ".base_layer" not in name and ".lora_" not in name
    }


@contextmanager
def _naming_tensors(renamed: Mapping[str, str]) -> Iterator[None]:
    """Let the tensors of every safetensors file that is read within the block carry their names.

    diffusers reads a LoRA itself, and takes no tensors in its place without losing the file's metadata.
    """
    original = safetensors.torch.load_file

    def load_file(filename: Any, device: Any = "cpu") -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {}
        for name, tensor in original(filename, device=device).items():
            named = tensor.as_subclass(NamedTensor)
            named.names = frozenset([name])
            weights[renamed.get(name, name)] = named
        return weights

    safetensors.torch.load_file = load_file  # type: ignore[assignment]
    try:
        yield
    finally:
        safetensors.torch.load_file = original


def _take_names(component: Any) -> frozenset[str]:
    """Return the names that the parameters of a component carry, and make them plain parameters."""
    found: set[str] = set()
    for module in component.modules() if isinstance(component, nn.Module) else ():
        for name, parameter in module._parameters.items():
            if isinstance(parameter, NamedTensor):
                found |= parameter.names
                plain = parameter.detach().as_subclass(Tensor)
                module._parameters[name] = nn.Parameter(plain, requires_grad=parameter.requires_grad)
    return frozenset(found)


def _names_in(value: Any) -> frozenset[str]:
    if isinstance(value, NamedTensor):
        return value.names
    if isinstance(value, tuple | list):
        return frozenset[str]().union(*(_names_in(item) for item in value))
    return frozenset()


def _left_out(present: Sequence[str], used: frozenset[str]) -> list[str]:
    """Return the names that were not used. An alpha, a number that scales a module, counts as used with its module."""
    modules = {_module(name) for name in used}
    return [name for name in present if name not in used and not (_is_alpha(name) and _module(name) in modules)]


def _is_alpha(name: str) -> bool:
    return name.endswith((".alpha", ".network_alpha"))


def _module(name: str) -> str:
    """Return the module that a tensor of a LoRA changes: its name up to the part that names the factor."""
    for sign in (".lora", ".alpha", ".network_alpha"):
        name = name.partition(sign)[0]
    return name


def _own_names(present: Sequence[str], pipeline: Any) -> dict[str, str]:
    """Return the names that diffusers reads for those of other trainers, which are modules of the denoiser alone."""
    part = "unet" if hasattr(pipeline, "unet") else "transformer"
    denoiser = getattr(pipeline, part, None)
    modules = {name for name, _ in denoiser.named_modules()} if denoiser is not None else set()
    found = {}
    for name in present:
        for prefix in FOREIGN_PREFIXES:
            own = name.removeprefix(prefix)
            if not name.startswith(prefix):
                continue
            if _module(own) in modules:
                found[name] = f"{part}.{own}"
            elif own.startswith(("double_blocks.", "single_blocks.")):
                # FLUX's own names, which diffusers reads with the factors' names of kohya.
                factors = own.replace(".lora_A.", ".lora_down.").replace(".lora_B.", ".lora_up.")
                found[name] = f"diffusion_model.{factors}"
    return found


@contextmanager
def _silence() -> Iterator[None]:
    """Keep messages of diffusers and peft away: what they tell of a file is known from what was used of it."""
    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        diffusers_logging.set_verbosity(level)
