"""The flow's signature: a parameter and a heading for each field of the configuration."""

import inspect

from flows.signature import FIRST_IN_FORM, group_of, parameters
from t2i_core.config import Config


def test_every_field_has_a_keyword_parameter_and_those_that_people_change_come_first():
    found = parameters()
    assert {parameter.name for parameter in found} == set(Config.model_fields)
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in found)
    assert tuple(parameter.name for parameter in found[: len(FIRST_IN_FORM)]) == FIRST_IN_FORM


def test_every_field_has_a_heading():
    assert {group_of(name) for name in Config.model_fields} == {
        "Data set",
        "Model",
        "Sampling (default: the model's own)",
        "Speed and memory",
        "Run",
        "Output",
    }
    assert group_of("steps") == "Sampling (default: the model's own)"
