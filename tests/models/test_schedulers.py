"""Schedulers and their options against a model, from its small files alone."""

import importlib.util
import json
from typing import Any

import pytest

from t2i_core.errors import ConfigError
from t2i_core.models.schedulers import check_scheduler

SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
SANA = {
    "_class_name": "DPMSolverMultistepScheduler",
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
}
FLOW_OPTIONS = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def check(
    name: str | None,
    options: dict[str, Any] | None = None,
    pipeline: str | None = "StableDiffusionXLPipeline",
    own: dict[str, Any] | None = SDXL,
    lora: bool = False,
) -> str | None:
    return check_scheduler(name, options, pipeline_class=pipeline, own=own, lora=lora)


def refusal(*arguments: Any, **named: Any) -> str:
    with pytest.raises(ConfigError) as error:
        check(*arguments, **named)
    assert len(error.value.problems) == 1
    return str(error.value)


def test_the_models_own_scheduler_is_not_checked() -> None:
    assert check(None) is None
    assert check(None, own=FLOW, pipeline="FluxPipeline") is None
    assert check(None, own=None, pipeline=None) is None
    assert check(None, own={}) is None


@pytest.mark.parametrize(
    "name",
    ["DDIMScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"],
)
def test_a_compatible_scheduler_is_taken_without_options(name: str) -> None:
    assert check(name) is None


@pytest.mark.parametrize(
    "name", ["FlowMatchEulerDiscreteScheduler", "SASolverScheduler", "SCMScheduler", "DDIMInverseScheduler"]
)
def test_what_diffusers_does_not_name_compatible_is_refused_with_what_it_names(name: str) -> None:
    message = refusal(name)
    assert message.startswith(
        f"scheduler: {name} is not compatible with the model's own EulerDiscreteScheduler; choose"
    )
    assert "DPMSolverMultistepScheduler" in message
    assert "EDMEulerScheduler" not in message


def test_a_scheduler_for_distilled_weights_is_taken_with_a_lora_alone() -> None:
    assert "there is no --lora" in refusal("LCMScheduler")
    assert check("LCMScheduler", lora=True) is None
    assert "is not compatible" in refusal("LCMScheduler", lora=True, own=FLOW, pipeline="StableDiffusion3Pipeline")


def test_a_compatible_scheduler_that_makes_noise_is_refused() -> None:
    assert "trained as EDM's" in refusal("EDMEulerScheduler")


@pytest.mark.parametrize("own", [FLOW, SANA])
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DDIMScheduler", "DEISMultistepScheduler"])
def test_flow_matching_takes_only_solvers_of_flow_matching(name: str, own: dict[str, Any]) -> None:
    message = refusal(name, own=own, pipeline="SanaPipeline")
    assert "noise" in message
    assert "UniPCMultistepScheduler" in message


@pytest.mark.parametrize("chosen", [("DDIMScheduler",), (None, {"clip_sample": True})])
def test_a_pipeline_of_pipelines_would_ignore_the_scheduler_and_is_refused(chosen: tuple[Any, ...]) -> None:
    assert "has pipelines within" in refusal(*chosen, pipeline="KandinskyV22CombinedPipeline")
    assert check(None, pipeline="KandinskyV22CombinedPipeline") is None


def test_the_options_that_a_flow_solver_needs_are_named_and_enough() -> None:
    for pipeline, own, needed in (
        ("StableDiffusion3Pipeline", FLOW, FLOW_OPTIONS),
        ("FluxPipeline", FLOW | {"use_dynamic_shifting": True}, {**FLOW_OPTIONS} | {"flow_shift": None}),
        ("FluxPipeline", FLOW, {**FLOW_OPTIONS, "use_dynamic_shifting": True} | {"flow_shift": None}),
    ):
        message = refusal("DPMSolverMultistepScheduler", {"solver_order": 3}, pipeline=pipeline, own=own)
        options = json.loads(message.partition("--scheduler-options '")[2].removesuffix("'"))
        assert options == {key: value for key, value in needed.items() if value is not None} | {"solver_order": 3.0}
        assert json.loads(check("DPMSolverMultistepScheduler", options, pipeline, own) or "") == options


def test_what_a_model_was_trained_with_is_not_lost_where_its_settings_leave_it_out() -> None:
    own = {"_class_name": "DPMSolverMultistepScheduler", "beta_end": 0.02}
    assert refusal("HeunDiscreteScheduler", own=own).endswith("""add --scheduler-options '{"beta_start": 0.0001}'""")
    assert check("HeunDiscreteScheduler", {"beta_start": 0.0001}, own=own) == '{"beta_start": 0.0001}'
    assert check("EulerDiscreteScheduler", own=own) is None


def test_the_shift_of_the_model_is_not_lost_between_classes() -> None:
    message = refusal("FlowMatchEulerDiscreteScheduler", own=SANA, pipeline="SanaPipeline")
    assert message.endswith("""add --scheduler-options '{"shift": 3.0}'""")
    assert check("FlowMatchEulerDiscreteScheduler", {"shift": 4}, "SanaPipeline", SANA) == '{"shift": 4.0}'
    assert check("UniPCMultistepScheduler", None, "SanaPipeline", SANA) is None


@pytest.mark.parametrize(
    ("name", "pipeline", "argument"),
    [
        ("FlowMatchHeunDiscreteScheduler", "FluxPipeline", "mu and sigmas"),
        ("DPMSolverMultistepScheduler", "QwenImagePipeline", "sigmas"),
        ("UniPCMultistepScheduler", "CogView4Pipeline", "timesteps"),
    ],
)
def test_a_scheduler_that_cannot_take_what_the_pipeline_passes_is_refused(
    name: str, pipeline: str, argument: str
) -> None:
    assert f"{name} does not take the {argument} that {pipeline} sets" in refusal(name, pipeline=pipeline, own=FLOW)


def test_a_list_of_sigmas_is_not_given_to_a_scheduler_that_counts_on_an_array() -> None:
    assert "does not take sigmas in the form" in refusal("UniPCMultistepScheduler", pipeline="ZImagePipeline", own=FLOW)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"prediction_type": "epsilon"}, "prediction_type epsilon makes noise"),
        ({"use_flow_sigmas": False}, "use_flow_sigmas false makes noise"),
        ({"final_sigmas_type": "sigma_min"}, "leaves noise"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas and use_flow_sigmas exclude each other"),
        ({"use_dynamic_shifting": True}, "needs a mu, which SanaPipeline does not set"),
    ],
)
def test_options_that_spoil_a_flow_model_are_refused(options: dict[str, Any], reason: str) -> None:
    assert reason in refusal(None, options, "SanaPipeline", SANA)


def test_options_of_flow_matching_are_refused_for_other_models() -> None:
    assert "are for models of flow matching" in refusal("UniPCMultistepScheduler", {"use_flow_sigmas": True})


def test_sigmas_of_two_kinds_are_refused_whoever_sets_them() -> None:
    own = SDXL | {"use_karras_sigmas": True}
    message = refusal(None, {"use_exponential_sigmas": True}, own=own)
    assert message == (
        "scheduler_options: use_karras_sigmas and use_exponential_sigmas exclude each other; set all but one to false"
    )
    assert check(None, {"use_exponential_sigmas": True, "use_karras_sigmas": False}, own=own)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"use_karas_sigmas": True},
            "use_karas_sigmas: EulerDiscreteScheduler has no such option; did you mean use_karras",
        ),
        ({"zzz": 1}, "zzz: EulerDiscreteScheduler has no such option; it has beta_end, beta_schedule"),
        ({"use_karras_sigmas": "yes"}, "use_karras_sigmas: write true or false (got 'yes')"),
        ({"use_karras_sigmas": 1}, "use_karras_sigmas: write true or false (got 1)"),
        ({"steps_offset": 0.5}, "steps_offset: write a whole number (got 0.5)"),
        ({"steps_offset": True}, "steps_offset: write a whole number (got True)"),
        ({"beta_start": "small"}, "beta_start: write a number (got 'small')"),
        ({"timestep_spacing": "even"}, "timestep_spacing: write one of linspace, leading, trailing (got 'even')"),
        ({"beta_schedule": "cubic"}, "beta_schedule: write one of linear, scaled_linear, squaredcos_cap_v2"),
        ({"trained_betas": ["a"]}, "trained_betas: write a list of numbers"),
        ({"beta_end": None}, "beta_end: write a number (got None)"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_options_are_checked_against_the_class_before_the_model_is_known(
    options: dict[str, Any], problem: str, known: bool
) -> None:
    model = {} if known else {"own": None, "pipeline": None}
    assert refusal("EulerDiscreteScheduler", options, **model).startswith(f"scheduler_options.{problem}")


def test_an_option_that_json_cannot_hold_is_refused() -> None:
    assert "cannot be set here; leave it out" in refusal("UniPCMultistepScheduler", {"solver_p": "x"})


@pytest.mark.parametrize(("steps", "options"), [(1, None), (4, None), (3, {"skip_prk_steps": True})])
def test_steps_that_fail_with_the_scheduler_are_refused(steps: int, options: dict[str, Any] | None) -> None:
    settings: dict[str, Any] = {"pipeline_class": "StableDiffusionXLPipeline", "own": SDXL, "lora": True}
    if steps == 1:
        with pytest.raises(ConfigError, match="steps: PNDMScheduler takes 4 or more"):
            check_scheduler("PNDMScheduler", options, steps=steps, **settings)
    else:
        check_scheduler("PNDMScheduler", options, steps=steps, **settings)
    for name in ("LCMScheduler", "TCDScheduler"):
        with pytest.raises(ConfigError, match=f"steps: {name} takes at most 50, its original_inference_steps"):
            check_scheduler(name, None, steps=51, **settings)
        check_scheduler(name, {"original_inference_steps": 51}, steps=51, **settings)


def test_every_wrong_option_has_its_line() -> None:
    with pytest.raises(ConfigError) as error:
        check("EulerDiscreteScheduler", {"a": 1, "steps_offset": "b"})
    assert len(error.value.problems) == 2


def test_options_have_one_form() -> None:
    one = check("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 1, "steps_offset": 3.0})
    other = check("EulerDiscreteScheduler", {"steps_offset": 3, "sigma_min": 1.0, "use_karras_sigmas": True})
    assert one == other == '{"sigma_min": 1.0, "steps_offset": 3, "use_karras_sigmas": true}'


def test_options_that_the_model_has_anyway_are_no_options() -> None:
    assert check(None, {"shift": 3, "use_karras_sigmas": False}, "FluxPipeline", FLOW) is None
    assert check(None, {"shift": 1}, "FluxPipeline", FLOW) == '{"shift": 1.0}'
    assert check("DDIMScheduler", {"clip_sample": False}) is None
    assert check("DDIMScheduler", {"clip_sample": False}, own=SDXL | {"_use_default_values": ["clip_sample"]})


def test_options_without_a_scheduler_are_those_of_the_models_own() -> None:
    assert check(None, {"shift": 5.0}, "FluxPipeline", FLOW) == '{"shift": 5.0}'
    assert "EulerDiscreteScheduler has no such option" in refusal(None, {"shift": 5.0})
    assert "not known; set scheduler" in refusal(None, {"shift": 5.0}, own={})
    assert check(None, {"shift": 5.0}, own=None, pipeline=None) is None  # checked once the model is known


def test_a_scheduler_without_the_seeds_of_images_is_refused_also_as_the_models_own() -> None:
    assert "without the seeds of the images" in refusal("DPMSolverSDEScheduler")
    assert "without the seeds of the images" in refusal("DPMSolverSDEScheduler", own=None, pipeline=None)
    own = SDXL | {"_class_name": "DPMSolverSDEScheduler"}
    assert "the model's own DPMSolverSDEScheduler draws its noise" in refusal(None, own=own)
    assert check("DPMSolverMultistepScheduler", own=own) is None


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "scipy" else find_spec(name))
    assert refusal("LMSDiscreteScheduler") == "scheduler: LMSDiscreteScheduler needs scipy; run `pip install scipy`"
    assert "use_beta_sigmas of EulerDiscreteScheduler needs scipy" in refusal(None, {"use_beta_sigmas": True})
