"""The choice of the files that a diffusers pipeline loads from a folder or repository.

Folders, the hub and its cache follow one rule, so that the same model has the same identity in all of them:
`model_index.json`, and for each component that is not null the small files directly in its folder and its safetensors
weights under their standard names, those of the variant that is wanted before the plain ones. Left out are READMEs,
pictures, pickles, ONNX, other variants, single-file checkpoints.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i_core.errors import ModelError, listed, shorten
from t2i_core.models.names import DENOISERS, GGUF, PICKLE_SUFFIXES, SAFETENSORS
from t2i_core.models.pipeline_signature import check_text_to_image

INDEX = "model_index.json"
# A .jinja file is the chat template with which some tokenizers wrap a prompt, so it decides pixels, too.
SMALL_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken")
NOT_LOADED = re.compile(r"(?i)^(readme|licen[cs]e|notice)\b|\.index\.(\w+\.)?json$")
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model"
TRANSFORMERS_WEIGHTS = "model"
VARIANT = re.compile(
    r"^(.*/)?(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.(?P<name>[A-Za-z0-9_]+)(-\d+-of-\d+)?\.safetensors$"
)
# Components of these kinds have settings only.
WITHOUT_WEIGHTS = re.compile(r"(Tokenizer(Fast)?|TokenizersBackend|Scheduler|Processor|FeatureExtractor)$")
CONFIGS = {
    "transformer": "config.json",
    "unet": "config.json",
    "vae": "config.json",
    "scheduler": "scheduler_config.json",
}

ReadText = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class PipelineFiles:
    """What a pipeline loads.

    paths: sorted, relative to its folder.
    configs: those of `CONFIGS` by component; under "index" what model_index.json says of the pipeline itself.
    classes: the class of each component that is not null.
    """

    pipeline_class: str
    paths: tuple[str, ...]
    configs: Mapping[str, Any]
    classes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which weights of a pipeline are wanted.

    variant: the variant whose files are taken where a component has it, as in `model.fp16.safetensors`.
    supplied: components whose weights come from elsewhere; of these only the small files are taken.
    """

    variant: str | None = None
    supplied: tuple[str, ...] = ()


def select_files(name: str, paths: Collection[str], read: ReadText, wanted: Wanted) -> PipelineFiles:
    """Return those of `paths` that the pipeline loads. `read` returns a small file's text; `name` is for messages.

    Raises:
        ModelError: if this is no text-to-image pipeline, has code of its own, or lacks safetensors weights.
    """
    if INDEX not in paths:
        raise ModelError(f"{name}: no {INDEX}; {_what_instead(paths)}")
    index = read_json(name, INDEX, read)
    pipeline_class = index.get("_class_name")
    if not isinstance(pipeline_class, str):
        raise ModelError(
            f"{name}: {INDEX} names no diffusers class (_class_name is {shorten(pipeline_class)}); "
            "code of a model's own is not run; choose another model"
        )
    check_text_to_image(pipeline_class, name)
    chosen, classes = {INDEX}, {}
    for component, value in index.items():
        # A component is [library, class]; [null, null] is one left out; other values are settings.
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
            chosen |= _component_files(name, component, value[0], value[1], paths, read, wanted)
            classes[component] = value[1]
    if wanted.variant and not wanted.supplied and wanted.variant not in variants_of(chosen):
        others = ", ".join(variants_of(paths)) or "none"
        raise ModelError(
            f"variant: {name} has no weights of the {wanted.variant} variant (its variants: {others}); leave it out"
        )
    configs = {
        component: read_json(name, f"{component}/{file}", read)
        for component, file in CONFIGS.items()
        if f"{component}/{file}" in chosen
    }
    configs["index"] = {key: value for key, value in index.items() if not isinstance(value, list)}
    if "scheduler" in configs:
        # diffusers loads the class that the index names, whatever the settings say.
        configs["scheduler"]["_class_name"] = index["scheduler"][1]
    return PipelineFiles(pipeline_class, tuple(sorted(chosen)), configs, classes)


def select_component(
    name: str, folder: str, paths: Collection[str], read: ReadText, variant: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return (configuration, sorted paths) of a denoiser that lies in `folder` by itself, without a pipeline.

    Raises:
        ModelError: for a folder without a config.json that names a class, or without safetensors weights.
    """
    prefix = f"{folder}/" if folder else ""
    if f"{prefix}{INDEX}" in paths:
        raise ModelError(f"{name} holds a whole pipeline; name the folder in it that holds the transformer")
    if f"{prefix}config.json" not in paths:
        raise ModelError(f"{name} has no config.json; name a folder that a transformer's save_pretrained has written")
    config = read_json(name, f"{prefix}config.json", read)
    files = {path.removeprefix(prefix) for path in paths if path.startswith(prefix)}
    weights = _weights(name, folder, "diffusers", files, read, variant)
    if not weights:
        others = [other for other in variants_of(files) if other != variant]
        why = (
            f"but those of the {others[0]} variant; add --variant {others[0]}"
            if others
            else (f"that are loaded ({DIFFUSERS_WEIGHTS}.safetensors, in one or several files)")
        )
        raise ModelError(f"{name} has no weights {why}")
    return config, sorted(prefix + file for file in {"config.json", *weights})


def variants_of(paths: Iterable[str]) -> list[str]:
    """Return the sorted names of the variants among files of weights."""
    return sorted({match["name"] for path in paths if (match := VARIANT.match(path))})


def denoiser_weights(paths: Collection[str]) -> list[str]:
    """Return those of a pipeline's files that hold the denoiser's weights."""
    folders = tuple(f"{name}/" for name in DENOISERS)
    return sorted(path for path in paths if path.endswith(SAFETENSORS) and path.startswith(folders))


def list_folder(folder: Path) -> list[str]:
    """Return the files of a folder and of its subfolders as relative paths with `/`; a pipeline has no deeper ones."""
    found = [path for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    return [path.relative_to(folder).as_posix() for path in found if path.is_file()]


def _component_files(
    name: str, component: str, library: str, class_name: str, paths: Collection[str], read: ReadText, wanted: Wanted
) -> set[str]:
    prefix = f"{component}/"
    files = {path[len(prefix) :] for path in paths if path.startswith(prefix) and "/" not in path[len(prefix) :]}
    if not files and component not in wanted.supplied:
        raise ModelError(
            f"{name}: {INDEX} names {component}, but the folder {component}/ is missing, empty or not readable; "
            "get it again"
        )
    if f"{library}.py" in files:
        raise ModelError(
            f"{name}: {component} brings its own code ({library}.py), which is not run; choose another model"
        )
    chosen = {file for file in files if file.endswith(SMALL_SUFFIXES) and not NOT_LOADED.search(file)}
    if component in wanted.supplied:
        return {prefix + file for file in chosen}
    chosen |= _weights(name, component, library, files, read, wanted.variant)
    if "config.json" in files and not WITHOUT_WEIGHTS.search(class_name):
        _require_weights(name, component, files, chosen, wanted.variant)
    return {prefix + file for file in chosen}


def _weights(name: str, component: str, library: str, files: set[str], read: ReadText, variant: str | None) -> set[str]:
    """Return the one file of weights, or the index and the shards it names, or nothing.

    A component without the variant is loaded from its plain files, as in diffusers.
    """
    stems = [DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS]
    variant = variant if variant in variants_of(files) else None
    ending, index_ending = (f".{variant}", f".{variant}.json") if variant else ("", ".json")
    for stem in stems if library == "diffusers" else stems[::-1]:
        single, index = f"{stem}{ending}.safetensors", f"{stem}.safetensors.index{index_ending}"
        # Where both exist, diffusers loads the shards and transformers the single file.
        if single in files and (stem == TRANSFORMERS_WEIGHTS or index not in files):
            return {single}
        if index in files:
            shards = _shards(read_json(name, f"{component}/{index}".lstrip("/"), read))
            if missing := sorted(shards - files):
                raise ModelError(
                    f"{name}: {component}/{index} names what is not there: {listed(missing, 1)}; get the model again"
                )
            return {index, *shards}
    return set()


def _require_weights(name: str, component: str, files: set[str], chosen: set[str], variant: str | None) -> None:
    if any(file.endswith(".safetensors") for file in chosen):
        return
    again = f'DiffusionPipeline.from_pretrained("{name}"'
    variants = variants_of(files)
    if variant in variants:
        raise ModelError(
            f"{name}: the {variant} weights of {component}/ are in several files, and the index of them "
            f"(such as {DIFFUSERS_WEIGHTS}.safetensors.index.{variant}.json) is not there; get the model again"
        )
    if variants:
        raise ModelError(
            f"{name}: {component}/ has weights of the {variants[0]} variant only; add --variant {variants[0]}"
        )
    if any(file.endswith(PICKLE_SUFFIXES) for file in files):
        raise ModelError(
            f"{name}: the weights of {component}/ are pickle files, which can run code and are not loaded; if you "
            f'trust them, convert: {again}, use_safetensors=False).save_pretrained("FOLDER", safe_serialization=True), '
            "then --model FOLDER"
        )
    raise ModelError(
        f"{name}: {component}/ has no weights ({DIFFUSERS_WEIGHTS}.safetensors or {TRANSFORMERS_WEIGHTS}.safetensors); "
        "get the model again"
    )


def _shards(index: Mapping[str, Any]) -> set[str]:
    weight_map = index.get("weight_map")
    return {str(file) for file in weight_map.values()} if isinstance(weight_map, dict) else set()


def _what_instead(paths: Collection[str]) -> str:
    nested = sorted(path for path in paths if path.endswith(f"/{INDEX}"))
    if nested:
        return f"but {nested[0].rpartition('/')[0]} has one; name that folder"
    here = sorted(path for path in paths if "/" not in path)
    weights = [path for path in here if path.endswith((SAFETENSORS, GGUF))]
    if "config.json" in here and any(path.startswith(DIFFUSERS_WEIGHTS) for path in weights):
        return "it holds one part of a pipeline; name the pipeline, and if this is its transformer, --transformer this"
    if weights:
        return f"but it holds {listed(weights, 1)}; name the file itself"
    if any(path.endswith(PICKLE_SUFFIXES) for path in here):
        return (
            "it holds pickle files, which are not loaded; convert the model with diffusers' "
            "save_pretrained(safe_serialization=True) and name that folder"
        )
    return "name a folder written by a diffusers pipeline's save_pretrained, or a hub model in diffusers format"


def read_json(name: str, path: str, read: ReadText) -> dict[str, Any]:
    """Return the object in a JSON file of a model, whose name is for messages.

    Raises:
        ModelError: if it is broken, or no object.
    """
    try:
        value = json.loads(read(path))
    except ValueError as error:  # also UnicodeDecodeError
        raise ModelError(f"{name}: {path} is not JSON ({error}); get the model again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{name}: {path} is not a JSON object; get the model again")
    return value
