"""The flow's signature: a parameter and a heading for each field of the configuration."""

import inspect

from flows.signature import group_of, parameters
from t2i_core.config import Config


def test_every_field_has_a_keyword_parameter_and_those_that_people_change_come_first():
    found = parameters(Config)
    assert {parameter.name for parameter in found} == set(Config.model_fields)
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in found)
    assert tuple(parameter.name for parameter in found[: len(Config.first_in_form)]) == Config.first_in_form


def test_every_field_has_a_heading():
    assert {group_of(Config, name) for name in Config.model_fields} == {
        "Data set",
        "Model",
        "Sampling (default: the model's own)",
        "Speed and memory",
        "Run",
        "Output",
        "Prefect",
    }
    assert group_of(Config, "steps") == "Sampling (default: the model's own)"
