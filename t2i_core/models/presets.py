"""Presets: the default settings of each known model.

Steps, guidance and text lengths are the defaults of the pipelines' code in diffusers 0.42 at 1024x1024, except where a
preset says otherwise. The models' own cards could not be read when this table was written; what a card recommends may
differ. Only `demo` has been run by this project so far; the others are not measured on a GPU.

A fingerprint holds the fields by which a preset's own files differ from those of the other presets of its class. They
were read in public copies of the configurations on the hub, except the `sample_size` of sdxl-turbo.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from t2i_core.options.values import DEMO

# A preset with at most so many steps is of a model that was distilled to few steps.
FEW = 8

FLUX_DEV_LICENCE = (
    "FLUX.1 [dev] non-commercial licence: outputs may not be used to train a competing model; gated on the hub"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The default settings of one model.

    An argument that is None is not passed to the pipeline. Setting it is refused, unless `optional` names it.
    A preset without a repository is no model's own: its settings are a guess for a model that has none.
    """

    name: str
    repository: str
    pipeline_class: str
    steps: int
    height: int = 1024
    width: int = 1024
    guidance_scale: float | None = None
    true_cfg_scale: float | None = None
    negative_prompt: str | None = None
    max_sequence_length: int | None = None
    dtype: str = "bfloat16"
    size_multiple: int = 16
    vae_scale: int = 8  # pixels a side for each latent of the preset's own model
    licence_note: str = ""
    about: str = ""  # of a guess: whose settings are taken
    reason: str = ""  # of a guess: why
    optional: tuple[str, ...] = ()  # arguments that the model takes, but that are passed only when a user sets them
    # "component.field" -> value in the configuration; the component "index" is model_index.json
    fingerprint: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def is_guess(self) -> bool:
        """Whether these settings are taken for a model that is not the preset's own."""
        return not self.repository

    @property
    def label(self) -> str:
        """What messages call the model: a guess knows only its class."""
        return self.pipeline_class if self.is_guess else self.name

    @property
    def few_steps(self) -> bool:
        """Whether the model was distilled to few steps."""
        return self.steps <= FEW

    def takes(self, argument: str) -> bool:
        """Return whether the model uses an argument of `Sampling`."""
        return getattr(self, argument, None) is not None or argument in self.optional

    def fits(self, configs: Mapping[str, Any], *, scheduler: bool = True) -> bool:
        """Return whether no configuration contradicts the fingerprint. `scheduler=False`: the scheduler's may.

        A field that is missing is as good as null or false: configurations leave out what is at its default.
        """
        for name, expected in self.known_fingerprint(configs).items():
            component, _, key = name.partition(".")
            found = configs[component].get(key)
            if isinstance(expected, float) and isinstance(found, float):
                same = math.isclose(found, expected, rel_tol=1e-6)
            else:
                same = (found or None) == (expected or None)
            if not same and (scheduler or component != "scheduler"):
                return False
        return True

    def known_fingerprint(self, configs: Mapping[str, Any]) -> dict[str, Any]:
        """Return those fields of the fingerprint whose component has a configuration."""
        return {name: value for name, value in self.fingerprint.items() if name.partition(".")[0] in configs}


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name=DEMO,
            repository="bundled",
            pipeline_class="FluxPipeline",
            steps=12,
            height=64,
            width=64,
            guidance_scale=None,
            true_cfg_scale=2.5,
            negative_prompt="",
            optional=("negative_prompt",),
            max_sequence_length=24,
            dtype="float32",
            size_multiple=8,
            licence_note="Apache-2.0",
            about="demo model, 64x64, for trying the tool",
        ),
        Preset(
            name="flux-dev",
            repository="black-forest-labs/FLUX.1-dev",
            pipeline_class="FluxPipeline",
            steps=20,
            height=512,
            width=512,
            guidance_scale=3.5,
            true_cfg_scale=1.0,
            optional=("negative_prompt",),
            max_sequence_length=512,
            fingerprint={"transformer.guidance_embeds": True},
            licence_note=FLUX_DEV_LICENCE,
            about="steps and size as in the guide of DataFlow-MM",
        ),
        Preset(
            name="flux-dev-1024",
            repository="black-forest-labs/FLUX.1-dev",
            pipeline_class="FluxPipeline",
            steps=28,
            guidance_scale=3.5,
            true_cfg_scale=1.0,
            optional=("negative_prompt",),
            max_sequence_length=512,
            fingerprint={"transformer.guidance_embeds": True},
            licence_note=FLUX_DEV_LICENCE,
        ),
        Preset(
            name="flux-krea-dev",
            repository="black-forest-labs/FLUX.1-Krea-dev",
            pipeline_class="FluxPipeline",
            steps=28,
            guidance_scale=3.5,
            true_cfg_scale=1.0,
            optional=("negative_prompt",),
            max_sequence_length=512,
            fingerprint={"transformer.guidance_embeds": True},
            licence_note="non-commercial; gated on the hub",
        ),
        Preset(
            name="flux-schnell",
            repository="black-forest-labs/FLUX.1-schnell",
            pipeline_class="FluxPipeline",
            steps=4,
            max_sequence_length=256,
            fingerprint={"transformer.guidance_embeds": False, "scheduler.use_dynamic_shifting": False},
            licence_note="Apache-2.0",
        ),
        Preset(
            name="flux2-dev",
            repository="black-forest-labs/FLUX.2-dev",
            pipeline_class="Flux2Pipeline",
            steps=50,
            guidance_scale=4.0,
            max_sequence_length=512,
            licence_note="non-commercial; gated on the hub",
        ),
        Preset(
            name="flux2-klein",
            repository="black-forest-labs/FLUX.2-klein-4B",
            pipeline_class="Flux2KleinPipeline",
            steps=4,
            max_sequence_length=512,
            fingerprint={"index.is_distilled": True},
        ),
        Preset(
            name="flux2-klein-base",
            repository="black-forest-labs/FLUX.2-klein-base-4B",
            pipeline_class="Flux2KleinPipeline",
            steps=50,
            guidance_scale=4.0,
            max_sequence_length=512,
            fingerprint={"index.is_distilled": False},
            licence_note="Apache-2.0",
        ),
        Preset(
            name="qwen-image",
            repository="Qwen/Qwen-Image",
            pipeline_class="QwenImagePipeline",
            steps=50,
            true_cfg_scale=4.0,
            negative_prompt=" ",
            optional=("negative_prompt",),
            max_sequence_length=512,
            licence_note="Apache-2.0",
        ),
        Preset(
            name="z-image",
            repository="Tongyi-MAI/Z-Image",
            pipeline_class="ZImagePipeline",
            steps=50,
            guidance_scale=5.0,
            optional=("negative_prompt",),
            max_sequence_length=512,
        ),
        Preset(
            name="z-image-turbo",
            repository="Tongyi-MAI/Z-Image-Turbo",
            pipeline_class="ZImagePipeline",
            steps=8,
            guidance_scale=0.0,
            max_sequence_length=512,
            fingerprint={"scheduler.shift": 3.0, "scheduler.use_dynamic_shifting": False},
        ),
        Preset(
            name="sd3.5-large",
            repository="stabilityai/stable-diffusion-3.5-large",
            pipeline_class="StableDiffusion3Pipeline",
            steps=28,
            guidance_scale=7.0,
            optional=("negative_prompt",),
            max_sequence_length=256,
            fingerprint={"transformer.num_layers": 38},
            licence_note="Stability AI community licence; gated on the hub",
        ),
        Preset(
            name="sd3.5-large-turbo",
            repository="stabilityai/stable-diffusion-3.5-large-turbo",
            pipeline_class="StableDiffusion3Pipeline",
            steps=4,
            guidance_scale=0.0,
            max_sequence_length=256,
            # The configurations are those of sd3.5-large: only a name tells the two apart.
            fingerprint={"transformer.num_layers": 38},
            licence_note="Stability AI community licence; gated on the hub",
            about="steps and guidance as in the space of its makers",
        ),
        Preset(
            name="sd3-medium",
            repository="stabilityai/stable-diffusion-3-medium-diffusers",
            pipeline_class="StableDiffusion3Pipeline",
            steps=28,
            guidance_scale=7.0,
            optional=("negative_prompt",),
            max_sequence_length=256,
            fingerprint={"transformer.qk_norm": None},
            licence_note="Stability AI community licence; gated on the hub",
        ),
        Preset(
            name="sd3.5-medium",
            repository="stabilityai/stable-diffusion-3.5-medium",
            pipeline_class="StableDiffusion3Pipeline",
            steps=28,
            guidance_scale=7.0,
            optional=("negative_prompt",),
            max_sequence_length=256,
            fingerprint={"transformer.qk_norm": "rms_norm", "transformer.num_layers": 24},
            licence_note="Stability AI community licence; gated on the hub",
        ),
        Preset(
            name="sdxl",
            repository="stabilityai/stable-diffusion-xl-base-1.0",
            pipeline_class="StableDiffusionXLPipeline",
            steps=50,
            guidance_scale=5.0,
            optional=("negative_prompt",),
            size_multiple=8,
            licence_note="CreativeML Open RAIL++-M",
        ),
        Preset(
            name="sdxl-turbo",
            repository="stabilityai/sdxl-turbo",
            pipeline_class="StableDiffusionXLPipeline",
            steps=1,
            height=512,
            width=512,
            guidance_scale=0.0,
            size_multiple=8,
            fingerprint={"scheduler.timestep_spacing": "trailing", "unet.sample_size": 64},
            licence_note="Stability AI non-commercial or community licence",
        ),
        Preset(
            name="playground-v2.5",
            repository="playgroundai/playground-v2.5-1024px-aesthetic",
            pipeline_class="StableDiffusionXLPipeline",
            steps=50,
            guidance_scale=3.0,
            optional=("negative_prompt",),
            size_multiple=8,
            fingerprint={
                "scheduler._class_name": "EDMDPMSolverMultistepScheduler",
                "scheduler.prediction_type": "epsilon",
            },
            about="guidance as in its card",
        ),
        Preset(
            name="sana",
            repository="Efficient-Large-Model/Sana_1600M_1024px_diffusers",
            pipeline_class="SanaPipeline",
            steps=20,
            guidance_scale=4.5,
            optional=("negative_prompt",),
            max_sequence_length=300,
            size_multiple=32,
            vae_scale=32,
        ),
        Preset(
            name="sana-sprint",
            repository="Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",
            pipeline_class="SanaSprintPipeline",
            steps=2,
            guidance_scale=4.5,
            max_sequence_length=300,
            size_multiple=32,
            vae_scale=32,
        ),
        Preset(
            name="pixart-sigma",
            repository="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
            pipeline_class="PixArtSigmaPipeline",
            steps=20,
            guidance_scale=4.5,
            optional=("negative_prompt",),
            max_sequence_length=300,
            size_multiple=8,
        ),
        Preset(
            name="chroma",
            repository="lodestones/Chroma1-HD",
            pipeline_class="ChromaPipeline",
            steps=35,
            guidance_scale=5.0,
            optional=("negative_prompt",),
            max_sequence_length=512,
            licence_note="Apache-2.0",
        ),
        Preset(
            name="lumina2",
            repository="Alpha-VLLM/Lumina-Image-2.0",
            pipeline_class="Lumina2Pipeline",
            steps=30,
            guidance_scale=4.0,
            optional=("negative_prompt",),
            max_sequence_length=256,
            licence_note="Apache-2.0",
        ),
    )
}


def has_preset(pipeline_class: str) -> bool:
    """Return whether there is a preset of a pipeline class."""
    return any(preset.pipeline_class == pipeline_class for preset in PRESETS.values())


def repository_of(name: str) -> str:
    """Return the repository of a preset's name; `demo`, and a name that is no preset, are returned unchanged."""
    return PRESETS[name].repository if name in PRESETS and name != DEMO else name


def similar_model(name: str) -> str:
    """Return `; did you mean flux-dev?` for a name that is like a preset's or its repository's, else nothing."""
    repositories = [preset.repository for preset in PRESETS.values() if preset.name != DEMO]
    names = {name.casefold(): name for name in (*PRESETS, *repositories)}
    given = re.sub(r"[_ ]", "-", name.casefold())
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.7)
    if not close and len(given) >= 3:
        close = [other for other in names if other.startswith(given) or given.startswith(other)]
    return f"; did you mean {names[close[0]]}?" if close else ""
