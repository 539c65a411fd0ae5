"""What the installed diffusers may change of a request is known, for every pipeline class that this project accepts.

These tests read the source of diffusers. One that fails after an upgrade has found something new: read what it does,
then add it to `t2i_core/models/as_asked.py` if it changes what a user asks for, else to a group here.
"""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from t2i_core.engine.stages import ARRAYS, FLAGS, REFUSED_PROMPT
from t2i_core.errors import ModelError
from t2i_core.models import as_asked
from t2i_core.models.as_asked import AREA, LATENTS_A_TOKEN, SWITCHES, generated_size, pixels_version, switches
from t2i_core.models.pipeline_signature import call_defaults, check_text_to_image, init_parameters
from t2i_core.spec import PIXELS_VERSION, SHARED_ARGUMENTS, Sampling

# Parameters that the engine passes, beside those of `Sampling`.
PASSED = {"prompt", "negative_prompt", "generator", "output_type", "callback_on_step_end"}

# Parameters that do nothing as long as they are None.
OTHER_FORMS_OF_THE_TEXT = {
    *("prompt_2", "prompt_3", "prompt_4", "negative_prompt_2", "negative_prompt_3", "negative_prompt_4"),
    *("prompt_embeds", "prompt_embeds_2", "prompt_embeds_mask", "prompt_embeds_mask_2", "prompt_embeds_pooled"),
    *("prompt_embeds_t5", "prompt_embeds_llama3", "prompt_embeds_qwen", "prompt_embeds_clip", "prompt_cu_seqlens"),
    *("negative_prompt_embeds", "negative_prompt_embeds_2", "negative_prompt_embeds_mask"),
    *("negative_prompt_embeds_mask_2", "negative_prompt_embeds_pooled", "negative_prompt_embeds_t5"),
    *("negative_prompt_embeds_llama3", "negative_prompt_embeds_qwen", "negative_prompt_embeds_clip"),
    *("negative_prompt_cu_seqlens", "pooled_prompt_embeds", "negative_pooled_prompt_embeds", "attention_mask"),
    *("negative_attention_mask", "prompt_attention_mask", "prompt_attention_mask_2", "encoder_hidden_states"),
    *("negative_prompt_attention_mask", "negative_prompt_attention_mask_2", "negative_encoder_hidden_states"),
    *("text_pad_embedding", "prior_token_ids", "prior_token_image_ids", "source_image_grid_thw"),
}
OTHER_INPUTS = {
    *("latents", "prior_latents", "prompt_latents", "vae_latents", "clip_latents", "image", "images", "input_images"),
    *("ip_adapter_image", "ip_adapter_image_embeds", "negative_ip_adapter_image", "negative_ip_adapter_image_embeds"),
    *("mask", "text_images"),
    *("editing_prompt", "editing_prompt_embeddings", "edit_weights"),
    *("edit_cooldown_steps", "sem_guidance"),
}
OTHER_SETTINGS = {
    *("timesteps", "sigmas", "prior_timesteps", "decoder_timesteps", "original_inference_steps", "denoising_end"),
    *("attention_kwargs", "cross_attention_kwargs", "joint_attention_kwargs", "clip_skip", "skip_guidance_layers"),
    *("callback", "prior_callback_on_step_end", "return_index", "fonts", "clip_value", "tokenizer_max_length"),
}
# SDXL, Kolors: None stands for the size that is asked for. Lumina 2: None for the template it was trained with.
# HunyuanDiT, too; its `original_size` is the size that it was trained with.
MODELS_OWN = {
    *("original_size", "target_size", "negative_original_size", "negative_target_size", "system_prompt"),
}

# Parameters that do nothing at this default.
HARMLESS: dict[str, Any] = {
    "return_dict": True,
    "num_images_per_prompt": 1,
    "num_prompts_per_image": 1,
    "callback_steps": 1,
    "eta": 0.0,
    "guidance_rescale": 0.0,
    "cfg_truncation": 1.0,
    "cfg_trunc_ratio": 1.0,
    "scaling_watershed": 1.0,
    "circular_padding": False,
    "do_patching": False,
    "normalize": False,
    "debug": False,
    "reverse_editing_direction": False,
    "crops_coords_top_left": (0, 0),
    "negative_crops_coords_top_left": (0, 0),
    "micro_conditioning_crop_coord": (0, 0),
}

# Parameters of a model's own way of sampling: its authors' defaults, as `guidance_scale` would be without a preset.
RECIPE = {
    *("prior_guidance_scale", "prior_num_inference_steps", "decoder_guidance_scale", "distilled_guidance_scale"),
    *("pag_scale", "pag_adaptive_scale", "sag_scale", "image_guidance_scale", "img_guidance_scale"),
    *("guidance_schedule", "cfg_normalization", "enable_cfg_renorm", "cfg_renorm_min", "skip_layer_guidance_scale"),
    *("skip_layer_guidance_start", "skip_layer_guidance_stop", "edit_guidance_scale", "edit_warmup_steps"),
    *("edit_threshold", "edit_momentum_scale", "edit_mom_beta", "sld_guidance_scale", "sld_warmup_steps"),
    *("sld_threshold", "sld_momentum_scale", "sld_mom_beta", "mu", "std", "temperature", "max_timesteps"),
    *("intermediate_timesteps", "noise_level", "tolerance", "parallel", "view_batch_size", "proportional_attn"),
    *("micro_conditioning_aesthetic_score", "text_encoder_out_layers"),
    *("data_type", "use_kv_cache"),
    "render_text_images",  # Bria Fibo 2: pictures of the words that a JSON prompt wants to read, as in training
}
# Parameters that say how to do what is not done.
UNUSED = {
    *("callback_on_step_end_tensor_inputs", "prior_callback_on_step_end_tensor_inputs", "max_input_image_size"),
    *("prompt_upsampling_temperature", "output_resolution"),
}
NONE_BY_DEFAULT = OTHER_FORMS_OF_THE_TEXT | OTHER_INPUTS | OTHER_SETTINGS
KNOWN = (
    PASSED | set(SHARED_ARGUMENTS.values()) | set(SWITCHES) | {AREA} | NONE_BY_DEFAULT | MODELS_OWN | set(HARMLESS)
    | RECIPE | UNUSED
)  # fmt: skip

# Why a call may set height or width to something else than a default of its own.
SIZES_SET = {
    "use_resolution_binning": [
        *("PRXPipeline", "PRXPixelPipeline", "PixArtAlphaPipeline", "PixArtSigmaPipeline", "PixArtSigmaPAGPipeline"),
        *("SanaPipeline", "SanaPAGPipeline", "SanaSprintPipeline", "HunyuanDiTPipeline", "HunyuanDiTPAGPipeline"),
    ],
    "max_area": ["FluxKontextPipeline"],
    "generated_size": ["HiDreamImagePipeline", "Kandinsky5T2IPipeline"],
    "LATENTS_A_TOKEN": ["FluxKontextPipeline", "Kandinsky3Pipeline", "Krea2Pipeline", "QwenImage21Pipeline"],
    "only with an image": [
        *("BriaFibo2Pipeline", "DreamLitePipeline", "DreamLiteMobilePipeline", "OmniGenPipeline"),
        "UniDiffuserPipeline",
    ],
    "the size of the latents": ["StableDiffusion3Pipeline"],
}
# Set where none is asked for.
A_DEFAULT = re.compile(
    r"sample_size( \* self\.vae_scale_factor)?$|sample_size\[\d\]$|^height, width = \(height \* self"
)
DIFFUSERS = Path(importlib.util.find_spec("diffusers").origin).parent  # type: ignore[union-attr, arg-type]


@cache
def sources() -> dict[str, tuple[ast.ClassDef, str]]:
    """Return {class: (its definition, the source of its module)} of the pipelines that this project accepts."""
    found = {}
    for path in sorted((DIFFUSERS / "pipelines").rglob("pipeline_*.py")):
        source = path.read_text(encoding="utf-8")
        for name in re.findall(r"^class (\w+Pipeline\w*)\(", source, re.MULTILINE):
            try:
                check_text_to_image(name, "m")
            except ModelError:
                continue
            (definition,) = (
                node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name
            )
            found[name] = (definition, source)
    return found


def assignments(pipeline_class: str, names: set[str]) -> list[str]:
    """Return the statements of the class's call that set one of `names`, but for those of the form `x = x or y`."""
    definition, _ = sources()[pipeline_class]
    statements = []
    for node in ast.walk(definition):
        if not isinstance(node, ast.FunctionDef) or node.name != "__call__":
            continue
        for statement in ast.walk(node):
            if not isinstance(statement, ast.Assign):
                continue
            targets = {
                part.id for target in statement.targets for part in ast.walk(target) if isinstance(part, ast.Name)
            }
            is_default = isinstance(statement.value, ast.BoolOp) and isinstance(statement.value.op, ast.Or)
            if targets & names and not is_default:
                statements.append(ast.unparse(statement))
    return statements


def test_there_are_pipelines_to_look_at() -> None:
    assert len(sources()) > 60
    assert {"FluxPipeline", "FluxKontextPipeline", "SanaPipeline", "StableDiffusionPipeline"} <= sources().keys()


def test_every_parameter_of_every_accepted_call_is_known() -> None:
    unknown = {name: extra for name in sources() if (extra := sorted(call_defaults(name).keys() - KNOWN))}
    assert unknown == {}


def test_no_parameter_is_known_that_no_accepted_call_takes() -> None:
    taken = {parameter for name in sources() for parameter in call_defaults(name)}
    assert KNOWN - taken == set()


def test_what_does_nothing_at_its_default_has_that_default() -> None:
    for name in sources():
        for parameter, default in call_defaults(name).items():
            if parameter in NONE_BY_DEFAULT | {"caption_upsample_temperature"}:
                assert default is None, (name, parameter)
            elif parameter in HARMLESS:
                assert default == HARMLESS[parameter], (name, parameter)


def test_a_parameter_is_in_one_group() -> None:
    groups = [PASSED, set(SWITCHES), NONE_BY_DEFAULT, MODELS_OWN, set(HARMLESS), RECIPE, UNUSED]
    groups.append(set(SHARED_ARGUMENTS.values()))
    assert sum(map(len, groups)) + 1 == len(KNOWN)


def test_a_call_that_sets_its_own_size_is_known() -> None:
    setting = {
        name for name in sources() if any(not A_DEFAULT.search(text) for text in assignments(name, {"height", "width"}))
    }
    assert setting == {name for names in SIZES_SET.values() for name in names}
    for name in SIZES_SET["use_resolution_binning"]:
        assert "use_resolution_binning" in call_defaults(name)
    assert set(SIZES_SET["LATENTS_A_TOKEN"]) <= LATENTS_A_TOKEN.keys()


def test_a_call_that_rewrites_its_prompt_is_known() -> None:
    rewriting = {
        name: text
        for name in sources()
        for text in assignments(name, {"prompt", "prompts"})
        if re.search(r"self\.\w+\(|json", text) and "isinstance(prompt, str)" not in text
    }
    # Bria Fibo 2 writes a JSON prompt without blanks. The others have a switch.
    assert rewriting.keys() == {
        *("ErnieImagePipeline", "Flux2Pipeline", "Ideogram4Pipeline", "LongCatImagePipeline", "BriaFibo2Pipeline")
    }


def test_a_pipeline_that_returns_no_processed_tensors_is_known() -> None:
    unprocessed = {name for name, (_, source) in sources().items() if not re.search(r"self\.\w+\.postprocess", source)}
    # These clamp their tensors to 0..1 themselves.
    assert (
        unprocessed - {"LDMTextToImagePipeline", "StableCascadeCombinedPipeline", "WuerstchenCombinedPipeline"}
        == ARRAYS
    )


def test_a_pipeline_with_a_safety_checker_marks_what_it_replaced() -> None:
    for name, (_, source) in sources().items():
        if "safety_checker" not in init_parameters(name):
            assert "run_safety_checker" not in source, name
        elif name == "Cosmos2TextToImagePipeline":
            assert REFUSED_PROMPT in source
        else:
            assert set(re.findall(r"(\w*(?:nsfw|watermark)\w*detected)=", source)) <= set(FLAGS), name
            assert any(f"{flag}=" in source for flag in FLAGS), name


def test_a_pipeline_that_marks_its_images_is_known() -> None:
    # SDXL's is not made (`engine/load.py`), IF's marks pictures (PIL) and no arrays.
    marking = {name for name, (_, source) in sources().items() if "apply_watermark" in source}
    assert marking == {"StableDiffusionXLPipeline", "StableDiffusionXLPAGPipeline", "IFPipeline"}
    assert all("add_watermarker" in init_parameters(name) for name in marking - {"IFPipeline"})


def test_a_denoiser_that_makes_one_token_of_several_latents_is_known() -> None:
    rounding = {name for name, (_, source) in sources().items() if re.search(r"\b(2|p) \* \(int\(height\) //", source)}
    with_a_preset = {
        *("FluxPipeline", "Flux2Pipeline", "Flux2KleinPipeline", "QwenImagePipeline", "ZImagePipeline"),
        *("ChromaPipeline", "Lumina2Pipeline"),
    }
    assert rounding - with_a_preset <= LATENTS_A_TOKEN.keys() <= sources().keys()


@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (1280, 768), (640, 1408)])
def test_sizes_that_a_pipeline_takes_are_generated_as_they_are(width: int, height: int) -> None:
    assert generated_size("Kandinsky5T2IPipeline", width, height) == (width, height)
    assert generated_size("FluxPipeline", width, height) == (width, height)


def test_the_size_that_a_pipeline_generates_in_place_of_another_is_told() -> None:
    assert generated_size("Kandinsky5T2IPipeline", 512, 512) == (1024, 1024)
    assert generated_size("Kandinsky5T2IPipeline", 640, 384) == (1280, 768)
    assert generated_size("HiDreamImagePipeline", 512, 512) == (1024, 1024)
    assert generated_size("HiDreamImagePipeline", 1024, 1024) == (1024, 1024)
    width, height = generated_size("HiDreamImagePipeline", 2048, 1024)
    assert (width, height) == (1440, 720)
    assert generated_size("HiDreamImagePipeline", width, height) == (1440, 720)


def test_the_sizes_of_kandinsky_5_are_those_of_the_installed_diffusers() -> None:
    _, source = sources()["Kandinsky5T2IPipeline"]
    (written,) = re.findall(r"self\.resolutions = (\[.*\])", source)
    assert ast.literal_eval(written) == list(as_asked._KANDINSKY_5_SIZES)


def test_switches_are_passed_where_a_call_takes_them() -> None:
    sampling = Sampling(height=512, width=768, steps=1)
    assert switches({"prompt", "use_pe", "max_area"}, sampling) == {"use_pe": False, "max_area": 512 * 768}
    assert switches({"prompt"}, sampling) == {}


def test_another_version_of_the_pixels_is_of_a_class_alone() -> None:
    assert pixels_version("FluxPipeline") == PIXELS_VERSION
    assert pixels_version("PRXPipeline") == pixels_version("IFPipeline") == 2
    assert as_asked.PIXELS_VERSIONS.keys() <= sources().keys()
