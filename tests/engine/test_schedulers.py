"""What `check_scheduler` lets through makes images, and the same ones whatever the batch; what it refuses does not.

Tiny models have random weights, so their images do not show noise. A perfect model does: one that knows the image and
answers each call with the true prediction. A scheduler that fits it arrives at that image.
"""

import inspect
import json

import diffusers
import numpy as np
import pytest
import torch

from t2i_core.bundled import DEMO_MODEL
from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.engine.batch_isolation import whole_call
from t2i_core.engine.flux import FluxStages
from t2i_core.engine.load import load_pipeline
from t2i_core.engine.schedulers import make_scheduler
from t2i_core.errors import ConfigError
from t2i_core.generation.interface import LoadConfig
from t2i_core.models.pipeline_signature import timesteps_call
from t2i_core.models.scheduler_source import karras_schedulers, packages_of, scheduler_names
from t2i_core.models.schedulers import check_scheduler
from t2i_core.spec import ImageSpec
from tests import tiny_pipelines
from tests.engine.float_images import float_images

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy's, of diffusers' code

CPU = torch.device("cpu")
STEPS = 20
LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
FLOW_CLASS = "FlowMatchEulerDiscreteScheduler"
FLOW_OPTIONS = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
# pipeline class -> settings of its own scheduler
MODELS = {
    "StableDiffusionXLPipeline": {"_class_name": "EulerDiscreteScheduler", **LATENT, "timestep_spacing": "leading"},
    "StableDiffusionPipeline": {"_class_name": "DDIMScheduler", **LATENT, "prediction_type": "v_prediction"},
    "PixArtSigmaPipeline": {"_class_name": "DPMSolverMultistepScheduler", "clip_sample": False},
    "SanaPipeline": {
        "_class_name": "DPMSolverMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 3.0,
    },
    "StableDiffusion3Pipeline": {"_class_name": FLOW_CLASS, "shift": 3.0},
    "FluxPipeline": {"_class_name": FLOW_CLASS, "shift": 3.0, "use_dynamic_shifting": True},
    "ChromaPipeline": {"_class_name": FLOW_CLASS, "shift": 1.0},
    "Lumina2Pipeline": {"_class_name": FLOW_CLASS, "shift": 6.0},
    "QwenImagePipeline": {"_class_name": FLOW_CLASS, "use_dynamic_shifting": True, "shift_terminal": 0.02},
}
INSTALLED = sorted(name for name in scheduler_names() if packages_of(name) == ("torch",))
KARRAS = sorted({*karras_schedulers()} & {*INSTALLED})


def needed_options(name, pipeline, own):
    """Return the options with which the scheduler is let through; None where it is refused."""
    try:
        check_scheduler(name, None, pipeline_class=pipeline, own=own)
    except ConfigError as error:
        _, found, options = str(error).partition("--scheduler-options '")
        return json.loads(options.removesuffix("'")) if found else None
    return {}


def distance(name, pipeline, own, options):
    """Return how far from the image a perfect model ends: 0 is there, 1 as far as noise."""
    model = getattr(diffusers, own["_class_name"]).from_config({k: v for k, v in own.items() if k != "_class_name"})
    load_config = LoadConfig("", "", "", scheduler=name, scheduler_options=json.dumps(options))
    scheduler = make_scheduler(load_config, model)
    set_timesteps(scheduler, pipeline)
    torch.manual_seed(0)
    image = torch.randn(1, 4, 8, 8)
    sample = torch.randn(1, 4, 8, 8) * getattr(scheduler, "init_noise_sigma", 1.0)
    takes = inspect.signature(scheduler.step).parameters
    keywords = {"generator": [torch.Generator().manual_seed(1)]} if "generator" in takes else {}
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
        prediction = perfect_prediction(model, scaled, float(timestep), image)
        sample = scheduler.step(prediction, timestep, sample, return_dict=False, **keywords)[0]
    return float((sample - image).abs().mean())


def set_timesteps(scheduler, pipeline):
    """Set the timesteps as the pipeline's call does."""
    call = timesteps_call(pipeline)
    keywords = {}
    if "mu" in call.passes and (
        not call.asks & {"use_dynamic_shifting"} or scheduler.config.get("use_dynamic_shifting")
    ):
        keywords["mu"] = 0.8
    if "sigmas" in call.passes and not (call.asks and scheduler.config.get("use_flow_sigmas")):
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / STEPS, STEPS), **keywords)
    else:
        scheduler.set_timesteps(STEPS, **keywords)


def perfect_prediction(model, sample, timestep, image):
    kind = model.config.get("prediction_type", "flow_prediction")
    if kind == "flow_prediction":
        return (sample - image) / max(timestep / 1000, 1e-4)
    alphas = diffusers.DDPMScheduler.from_config(model.config).alphas_cumprod.double().numpy()
    sigma = np.exp(np.interp(timestep, np.arange(1000), np.log(np.sqrt((1 - alphas) / alphas))))
    alpha = 1 / np.sqrt(1 + sigma**2)
    noise = (sample - alpha * image) / (sigma * alpha)
    return (noise if kind == "epsilon" else alpha * noise - sigma * alpha * image).float()


@pytest.mark.parametrize("pipeline", MODELS)
@pytest.mark.parametrize("name", INSTALLED)
def test_a_perfect_model_arrives_at_its_image_with_whatever_is_let_through(name, pipeline):
    own = MODELS[pipeline]
    options = needed_options(name, pipeline, own)
    if options is not None:
        assert distance(name, pipeline, own, options) < 0.05


@pytest.mark.parametrize("pipeline", ["SanaPipeline", "StableDiffusion3Pipeline", "FluxPipeline", "QwenImagePipeline"])
@pytest.mark.parametrize("name", KARRAS)
def test_with_flow_matching_what_is_refused_fails_or_makes_noise(name, pipeline):
    own = MODELS[pipeline]
    options = needed_options(name, pipeline, own)
    # This one arrives at a single known image by other ways, too, but leaves noise in its own way.
    tried = {} if name != "DEISMultistepScheduler" else FLOW_OPTIONS | {"flow_shift": 3.0}
    if options != {}:
        try:
            left = distance(name, pipeline, own, tried)
        except (ValueError, TypeError, AssertionError):
            return
        assert not left < 0.03


def test_a_scheduler_of_edm_makes_noise_with_other_models():
    for pipeline in ("StableDiffusionXLPipeline", "StableDiffusionPipeline"):
        assert needed_options("EDMEulerScheduler", pipeline, MODELS[pipeline]) is None
        assert distance("EDMEulerScheduler", pipeline, MODELS[pipeline], {}) > 1


def flux():
    return load_pipeline(LoadConfig(str(DEMO_MODEL), "float32", "cpu"))


GUIDED = {"guidance_scale": 4.0, "negative_prompt": "a cat"}
# build -> settings of its calls
TINY = {
    flux: {"true_cfg_scale": 2.0, "negative_prompt": "a cat", "max_sequence_length": 24},
    tiny_pipelines.stable_diffusion_3: GUIDED,
    tiny_pipelines.stable_diffusion_xl: GUIDED,
    tiny_pipelines.pixart_sigma: GUIDED,
    tiny_pipelines.qwen_image: {"true_cfg_scale": 4.0, "negative_prompt": "a cat"},
    tiny_pipelines.z_image: GUIDED,
    tiny_pipelines.lumina2: GUIDED,
}
# Options with which a solver adds noise in each step.
NOISY = {
    "DPMSolverMultistepScheduler": {"algorithm_type": "sde-dpmsolver++"},
    "DPMSolverSinglestepScheduler": {"algorithm_type": "sde-dpmsolver++"},
    FLOW_CLASS: {"stochastic_sampling": True},
}


@pytest.mark.parametrize("build", TINY, ids=lambda build: build.__name__)
def test_an_image_is_the_same_bytes_with_every_scheduler_that_is_let_through(build):
    pipeline = build()
    own, tried = pipeline.scheduler, []
    settings = {"_class_name": type(own).__name__, **{k: v for k, v in own.config.items() if not k.startswith("_")}}
    for name in INSTALLED:
        options = needed_options(name, type(pipeline).__name__, settings)
        if options is None:
            continue
        for noisy in ({}, NOISY[name]) if name in NOISY else ({},):
            chosen = LoadConfig("", "", "", scheduler=name, scheduler_options=json.dumps(options | noisy))
            pipeline.scheduler = make_scheduler(chosen, own)
            one = image_spec("a fox", 11, TINY[build])
            others = [
                image_spec(text, seed, TINY[build]) for seed, text in enumerate(("a boat at sea", "a hat", "sun"))
            ]
            alone, *_ = generate(pipeline, one)
            torch.manual_seed(len(tried))  # whatever torch's own generator would give
            *_, in_batch, _ = generate(pipeline, *others[:2], one, others[2])
            assert np.isfinite(alone).all()
            assert (in_batch == alone).all(), (name, noisy)
            tried.append(name)
    assert FLOW_CLASS in tried or len(set(tried)) > 5


def image_spec(prompt, seed, values):
    size = {"height": 32, "width": 32, "steps": 4, "dtype": "float32"}
    return ImageSpec(model="tiny", prompt=prompt, seed=seed, **size | values)


def generate(pipeline, *specs):
    is_flux = isinstance(pipeline, diffusers.FluxPipeline)
    stages = FluxStages(pipeline, CPU, staged=False) if is_flux else whole_call(pipeline, CPU)
    return float_images(BatchGenerator(stages, "cpu", {}), [specs], 4)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("DPMSolverSinglestepScheduler", {"solver_order": 4}, "Order > 3"),
        ("EulerDiscreteScheduler", {"num_train_timesteps": 0}, "EulerDiscreteScheduler"),
        ("DDIMScheduler", {"trained_betas": [0.1, 0.2]}, "fails with"),
    ],
)
def test_options_that_fail_in_the_steps_are_refused_before_any_image(name, options, reason):
    own = diffusers.DDIMScheduler(**LATENT)
    with pytest.raises(ConfigError, match=reason):
        make_scheduler(LoadConfig("", "", "", scheduler=name, scheduler_options=json.dumps(options)), own)


def test_options_of_a_scheduler_that_the_trial_does_not_suit_are_taken():
    own = diffusers.SCMScheduler()
    made = make_scheduler(LoadConfig("", "", "", scheduler_options='{"sigma_data": 0.25}'), own)
    assert made.config.sigma_data == 0.25


@pytest.mark.parametrize("options", [None, '{"clip_sample": false}'])
def test_clipping_that_the_models_own_scheduler_does_not_do_is_warned_of(caplog, options):
    own = diffusers.EulerDiscreteScheduler()
    made = make_scheduler(LoadConfig("", "", "", scheduler="DDIMScheduler", scheduler_options=options), own)
    assert ("clips to -1..1" in caplog.text) == made.config.clip_sample == (options is None)
