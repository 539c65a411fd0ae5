"""What is read from diffusers' source is what the installed classes say: a new version is noticed here."""

import importlib.util
import inspect
from types import NoneType

import diffusers
import pytest

from t2i_core.errors import ConfigError
from t2i_core.models.scheduler_source import (
    check_scheduler_name,
    karras_schedulers,
    packages_of,
    scheduler_class,
    scheduler_names,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy's, of diffusers' code

NAMES = sorted(scheduler_names())
# The others are stand-ins in diffusers, for want of a package.
INSTALLED = [name for name in NAMES if all(map(importlib.util.find_spec, packages_of(name)))]


def test_all_schedulers_of_diffusers_are_known() -> None:
    exported = {name for name in dir(diffusers) if name.endswith("Scheduler")}
    assert exported - set(NAMES) == {"KarrasVeScheduler"}  # deprecated
    assert set(NAMES) <= exported


@pytest.mark.parametrize("name", INSTALLED)
def test_compatible_schedulers_are_those_that_diffusers_names(name: str) -> None:
    assert scheduler_class(name).compatibles[0] == name
    assert set(scheduler_class(name).compatibles) == {name, *getattr(diffusers, name)._compatibles}


@pytest.mark.parametrize("name", sorted({*karras_schedulers()} & {*INSTALLED}))
def test_the_compatible_property_agrees(name: str) -> None:
    real = getattr(diffusers, name)
    assert {cls.__name__ for cls in real().compatibles} == set(scheduler_class(name).compatibles)


@pytest.mark.parametrize("name", INSTALLED)
def test_options_are_the_parameters_of_the_class_with_their_defaults(name: str) -> None:
    parameters = dict(inspect.signature(getattr(diffusers, name).__init__).parameters)
    parameters = {key: item for key, item in parameters.items() if key != "self" and item.kind != item.VAR_KEYWORD}
    options = scheduler_class(name).options
    assert options.keys() == parameters.keys()
    for key, option in options.items():
        if option.default is not ...:
            assert option.default == parameters[key].default, key
            types = option.types | ({int} if float in option.types else set())
            assert type(option.default) in types or not option.types, key
            assert not option.choices or option.default in (None, *option.choices), key


@pytest.mark.parametrize("name", INSTALLED)
def test_the_parameters_of_set_timesteps_are_read(name: str) -> None:
    real = getattr(diffusers, name)
    if hasattr(real, "set_timesteps"):
        parameters = inspect.signature(real.set_timesteps).parameters.values()
        expected = {item.name for item in parameters if item.kind != item.VAR_KEYWORD} - {"self"}
        assert scheduler_class(name).timesteps == expected


def test_types_and_choices_of_options() -> None:
    options = scheduler_class("UniPCMultistepScheduler").options
    assert options["solver_order"].types == {int}
    assert options["flow_shift"].types == {float}
    assert options["use_karras_sigmas"].types == {bool}
    assert options["solver_type"].choices == ("bh1", "bh2")
    assert options["sigma_max"].types == {float, NoneType}  # annotated as bool
    assert options["trained_betas"].types == {list, NoneType}
    assert (options["trained_betas"].items, options["disable_corrector"].items) == (float, int)
    assert not options["solver_p"].types
    # Annotated as text; the choices are those with which the class compares it.
    assert set(options["beta_schedule"].choices) == {"linear", "scaled_linear", "squaredcos_cap_v2"}


@pytest.mark.parametrize("name", sorted({*karras_schedulers()} & {*INSTALLED}))
def test_every_choice_of_an_option_is_one_that_the_class_takes(name: str) -> None:
    real = getattr(diffusers, name)
    for key in ("beta_schedule", "timestep_spacing", "final_sigmas_type", "sigma_schedule"):
        option = scheduler_class(name).options.get(key)
        for choice in option.choices if option else ():
            real(**{key: choice}).set_timesteps(4)


def test_schedulers_that_draw_noise_of_their_own_are_known() -> None:
    unseeded = {name for name in NAMES if not scheduler_class(name).seeded}
    assert unseeded == {"DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler"}


def test_packages_that_a_scheduler_needs() -> None:
    assert packages_of("LMSDiscreteScheduler") == ("torch", "scipy")
    assert packages_of("DPMSolverSDEScheduler") == ("torch", "torchsde")
    assert packages_of("EulerDiscreteScheduler") == ("torch",)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_a_scheduler_of_the_installed_diffusers_is_accepted(name: str) -> None:
    check_scheduler_name(name)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("EulerDiscrete", "did you mean EulerDiscreteScheduler?"),
        ("Euler", "did you mean EulerDiscreteScheduler?"),
        ("FlowMatchEulerDiscretScheduler", "did you mean FlowMatchEulerDiscreteScheduler?"),
        ("Zzz", "leave it out for the model's own"),
    ],
)
def test_another_name_is_refused_with_what_is_like_it(name: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=rf"^scheduler: diffusers \S+ has no {name}; ") as error:
        check_scheduler_name(name)
    assert str(error.value).endswith(fix)
