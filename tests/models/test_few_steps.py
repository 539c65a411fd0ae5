"""What configurations and names tell about distillation."""

import pytest

from t2i_core.models.few_steps import few_steps, is_undistilled, names_of, repository_in, steps_in_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("owner/name", "owner/name"),
        ("/root/.cache/hub/models--owner--my--name/snapshots/1681ed/unet", "owner/my--name"),
        ("models--owner--name", "owner/name"),
        ("/local/owner--name", "owner/name"),
        ("/data/models/My Model", "My Model"),
        ("./mine", "mine"),
        ("../a/mine/", "mine"),
        ("mine", "mine"),
        ("/mine", "/mine"),
        (".", "."),
    ],
)
def test_a_path_names_a_repository_or_its_last_part(path: str, name: str) -> None:
    assert repository_in(path) == name


def test_a_model_is_called_by_its_user_first_and_then_by_its_files() -> None:
    configs = {
        "index": {"_name_or_path": "owner/first"},
        "transformer": {"_name_or_path": None},
        "unet": {"_name_or_path": "owner/first"},
        "vae": {"_name_or_path": "owner/turbo"},
    }
    assert names_of(["./mine", "/data/mine"], configs) == ["mine", "owner/first"]
    assert names_of(["./mine"], {}) == ["mine"]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("SDXL-Lightning-4step", 4),
        ("sdxl_lightning_8steps", 8),
        ("Hyper-SD 16-Steps", 16),
        ("owner-2step/model", None),
        ("v1.5step", None),
        ("model-1000steps", None),
        ("checkpoint-500-steps", None),
        ("0step", None),
        ("stepped", None),
    ],
)
def test_a_name_may_say_how_many_steps(name: str, steps: int | None) -> None:
    found = steps_in_name([name])
    assert (found and found[0]) == steps


@pytest.mark.parametrize("name", ["FLUX.1-dev-de-distill", "Z_Image_De_Turbo", "flux-undistilled", "ostris/OpenFLUX.1"])
def test_a_distillation_that_was_trained_away_is_none(name: str) -> None:
    assert is_undistilled([name])
    assert few_steps({}, [name]) is None


@pytest.mark.parametrize("name", ["distilled", "wonderful-turbo", "made-turbo", "schnell"])
def test_a_distillation_is_one(name: str) -> None:
    assert not is_undistilled([name])


def test_the_first_name_that_says_something_counts() -> None:
    found = few_steps({}, ["mine", "owner/Chroma-Flash", "owner/sdxl-turbo"])
    assert found is not None
    assert (found.steps, found.by_name, found.why) == (8, True, "flash in its name owner/Chroma-Flash")


def test_a_configuration_goes_before_a_name_and_a_number_in_the_name_before_both() -> None:
    configs = {"scheduler": {"_class_name": "LCMScheduler"}}
    found = few_steps(configs, ["my-hyper"])
    assert found is not None
    assert (found.steps, found.by_name) == (4, False)
    found = few_steps(configs, ["my-hyper-6steps"])
    assert found is not None
    assert (found.steps, found.why) == (6, "its scheduler LCMScheduler; 6steps in its name")


def test_a_number_of_steps_alone_makes_no_distilled_model() -> None:
    assert few_steps({}, ["finetune-20-steps"]) is None


@pytest.mark.parametrize(
    "scheduler",
    [
        {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
        {"_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "trailing"},
        {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
        {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        {},
    ],
)
def test_schedulers_of_many_steps_are_none_of_few(scheduler: dict[str, object]) -> None:
    assert few_steps({"scheduler": scheduler}, ["mine"]) is None
