"""The configuration as flow parameters and as `prefect.yaml`."""

import pytest
import yaml

from flows.text2image import text2image
from t2i_core.config import Config
from tests.conftest import ROOT

SCHEMA = text2image.parameters.model_dump()


def test_flow_parameters_are_the_fields_of_the_configuration_flat():
    assert list(SCHEMA["properties"]) == list(Config.model_fields)
    assert not SCHEMA["required"]


def test_the_form_shows_descriptions_bounds_and_choices():
    properties = SCHEMA["properties"]
    for name, field in Config.model_fields.items():
        assert properties[name]["description"] == field.description
    assert properties["save_interval"]["minimum"] == 1
    assert properties["save_interval"]["maximum"] == 10_000
    assert properties["batch_size"]["default"] == 4
    assert {"type": "integer", "minimum": 1, "maximum": 1024} in properties["batch_size"]["anyOf"]
    assert {"type": "string", "const": "auto"} in properties["batch_size"]["anyOf"]
    assert properties["dtype"]["enum"] == ["auto", "bfloat16", "float16", "float32"]
    assert {"type": "integer", "minimum": 1, "maximum": 1000} in properties["steps"]["anyOf"]


def test_prefect_refuses_values_out_of_bounds():
    with pytest.raises(Exception, match="batch_size"):
        text2image.validate_parameters({"batch_size": 0})


def deployments():
    return yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("deployment", deployments(), ids=lambda d: d["name"])
def test_deployments_use_the_configuration(deployment):
    Config.from_values(deployment["parameters"])
    text2image.validate_parameters(deployment["parameters"])
    file, name = deployment["entrypoint"].split(":")
    assert (ROOT / file).is_file()
    assert name == "text2image"
    assert deployment["enforce_parameter_schema"] is True
