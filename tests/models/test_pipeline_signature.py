"""The arguments of a pipeline, read from the source of diffusers without importing it."""

import subprocess
import sys

import pytest

from t2i_core.errors import ModelError
from t2i_core.models.pipeline_signature import call_defaults, check_text_to_image, init_parameters, timesteps_call


def test_call_defaults_are_those_of_the_code() -> None:
    defaults = call_defaults("FluxPipeline")
    assert defaults["num_inference_steps"] == 28
    assert defaults["guidance_scale"] == 3.5
    assert defaults["max_sequence_length"] == 512
    assert defaults["prompt"] is None
    assert "self" not in defaults


def test_a_default_that_is_no_literal_and_none_at_all_are_ellipsis() -> None:
    assert call_defaults("StableCascadeDecoderPipeline")["image_embeddings"] is ...
    assert call_defaults("PixArtSigmaPipeline")["num_inference_steps"] == 20


def test_what_the_caller_changes_does_not_stay() -> None:
    call_defaults("FluxPipeline")["num_inference_steps"] = 1
    assert call_defaults("FluxPipeline")["num_inference_steps"] == 28


def test_init_parameters_name_the_components() -> None:
    assert init_parameters("ZImagePipeline") == {"transformer", "text_encoder", "tokenizer", "vae", "scheduler"}


def test_an_inherited_call_is_found() -> None:
    assert "prompt" in call_defaults("StableDiffusionOnnxPipeline")


def test_an_unknown_class_names_the_installed_version() -> None:
    import importlib.metadata

    with pytest.raises(
        ModelError, match=f"diffusers {importlib.metadata.version('diffusers')} has no pipeline NewPipeline"
    ):
        call_defaults("NewPipeline")


@pytest.mark.parametrize("name", ["a b", "", "x(", "../../x", "\n"])
def test_a_name_that_is_no_class_is_unknown(name: str) -> None:
    with pytest.raises(ModelError, match="has no pipeline"):
        call_defaults(name)


@pytest.mark.parametrize(
    "pipeline_class",
    [
        *("FluxPipeline", "Flux2Pipeline", "Flux2KleinPipeline", "QwenImagePipeline", "ZImagePipeline"),
        *("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "SanaPipeline"),
        *("SanaSprintPipeline", "PixArtSigmaPipeline", "ChromaPipeline", "Lumina2Pipeline", "HiDreamImagePipeline"),
        *("CogView4Pipeline", "AuraFlowPipeline", "KolorsPipeline", "HunyuanImagePipeline", "Kandinsky3Pipeline"),
        *("OmniGenPipeline", "Kandinsky5T2IPipeline", "IFPipeline", "PRXPipeline"),
    ],
)
def test_text_to_image_pipelines_are_accepted(pipeline_class: str) -> None:
    check_text_to_image(pipeline_class, "m")


@pytest.mark.parametrize(
    ("pipeline_class", "why"),
    [
        ("FluxImg2ImgPipeline", "Img2Img"),
        ("FluxInpaintPipeline", "Inpaint"),
        ("FluxFillPipeline", "Fill"),
        ("FluxControlNetPipeline", "Control"),
        ("KandinskyV22ControlnetPipeline", "Control"),
        ("QwenImageEditPipeline", "Edit"),
        ("StableDiffusionUpscalePipeline", "Upscale"),
        ("HunyuanVideoPipeline", "Video"),
        ("WanPipeline", "num_frames"),
        ("LTXPipeline", "num_frames"),
        ("StableAudioPipeline", "Audio"),
        ("AceStepPipeline", "audio_duration"),
        ("SanaWMPipeline", "needs image"),
        ("LLaDA2Pipeline", "makes no images"),
        ("DDPMPipeline", "takes no prompt"),
        ("StableDiffusionGLIGENPipeline", "GLIGEN"),  # it fails without phrases
        ("VQDiffusionPipeline", "takes no height and no width"),
    ],
)
def test_other_pipelines_are_refused_with_the_reason(pipeline_class: str, why: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_text_to_image(pipeline_class, "owner/name")
    message = str(caught.value)
    assert why in message
    assert message.startswith("owner/name: ")
    assert "\n" not in message


def test_it_imports_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys, t2i_core.models.identity\n"
        "from t2i_core.models.pipeline_signature import call_defaults\n"
        "call_defaults('ZImagePipeline')\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'prefect', 'huggingface_hub'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("pipeline_class", "passes", "asks"),
    [
        ("StableDiffusionXLPipeline", set(), set()),
        ("SanaPipeline", set(), set()),
        ("StableDiffusion3Pipeline", {"mu"}, {"use_dynamic_shifting"}),
        ("FluxPipeline", {"mu", "sigmas"}, {"use_flow_sigmas"}),
        ("QwenImagePipeline", {"mu", "sigmas"}, set()),
        ("ZImagePipeline", {"mu", "sigmas"}, set()),
        ("CogView4Pipeline", {"mu", "sigmas", "timesteps"}, set()),
        ("SanaSprintPipeline", {"max_timesteps", "intermediate_timesteps"}, set()),
    ],
)
def test_what_a_call_passes_to_its_scheduler(pipeline_class: str, passes: set[str], asks: set[str]) -> None:
    call = timesteps_call(pipeline_class)
    assert (call.passes, call.asks, call.arrays) == (
        passes,
        asks,
        pipeline_class not in ("ZImagePipeline", "CogView4Pipeline"),
    )
