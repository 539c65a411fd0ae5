"""The configuration as flow parameters and as `prefect.yaml`."""

import tempfile

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.importtools import import_object
from prefect.utilities.schema_tools.validation import validate

from flows.commands import COMMANDS
from flows.text2image import text2image
from t2i_core.config import Config
from tasks.settings import LOGGERS
from tests.conftest import ROOT

SCHEMA = text2image.parameters.model_dump()


def test_flow_parameters_are_the_fields_of_the_configuration_flat():
    assert set(SCHEMA["properties"]) == set(Config.model_fields)
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


@pytest.mark.parametrize("dataset", ["prompts.jsonl", "s3://bucket/a.csv", ["a.jsonl", "b.jsonl"]])
def test_the_data_set_of_a_deployed_run_is_one_name_or_several(dataset):
    assert SCHEMA["properties"]["dataset"]["default"] == "example"
    assert SCHEMA["properties"]["dataset"]["anyOf"][0] == {"type": "string", "minLength": 1}  # what the form offers
    text2image.validate_parameters({"dataset": dataset})
    assert not validate({"dataset": dataset}, SCHEMA, preprocess=False)  # as the server checks a request
    for wrong in ("", [], 5):
        assert validate({"dataset": wrong}, SCHEMA, preprocess=False)


def test_prefect_refuses_values_out_of_bounds():
    with pytest.raises(Exception, match="batch_size"):
        text2image.validate_parameters({"batch_size": 0})


def deployments():
    return yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def full_name(deployment):
    return f"{import_object(deployment['entrypoint']).name}/{deployment['name']}"


OPTIONS = {"flows.text2image.text2image": Config} | {
    command.flow.replace(":", "."): import_object(command.options.replace(":", ".")) for command in COMMANDS.values()
}


@pytest.mark.parametrize("deployment", deployments(), ids=full_name)
def test_deployments_use_the_options_of_their_flow(deployment):
    flow = import_object(deployment["entrypoint"])
    OPTIONS[deployment["entrypoint"]].from_values(deployment["parameters"])
    flow.validate_parameters(deployment["parameters"])
    assert deployment["enforce_parameter_schema"] is True


def test_no_two_deployments_have_one_name():
    names = [full_name(deployment) for deployment in deployments()]
    assert len(set(names)) == len(names)


def test_a_flow_loaded_by_its_file_logs_where_prefect_shows_it():
    # As `prefect flow serve` loads it: under another module name.
    loaded = load_flow_from_entrypoint(f"{ROOT / 'flows' / 'text2image.py'}:text2image")
    assert loaded.fn.__module__ != "flows.text2image"
    assert loaded.fn.__globals__["log"].name.partition(".")[0] in LOGGERS


def test_the_form_begins_with_what_people_change():
    by_position = sorted(SCHEMA["properties"], key=lambda name: SCHEMA["properties"][name]["position"])
    assert tuple(by_position[: len(Config.first_in_form)]) == Config.first_in_form


@pytest.mark.parametrize("deployment", deployments(), ids=full_name)
def test_no_path_of_a_machine_is_deployed(deployment):
    texts = [value for value in deployment["parameters"].values() if isinstance(value, str)]
    assert not [text for text in texts if text.startswith(("/", "~"))]
    assert "pull" not in deployment


def test_a_deployed_run_refuses_a_relative_output_in_a_folder_that_is_deleted(run, prompts, tmp_path, monkeypatch):
    dataset = prompts("a fox")
    monkeypatch.chdir(tempfile.mkdtemp(dir=tmp_path, suffix="prefect"))  # as a worker makes it
    assert run(dataset=dataset, output="here", dry_run=True).is_completed()
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "1")
    state = run(dataset=dataset, output="here")
    assert state.name == "Refused"
    assert state.message.startswith("output: here is relative, and the folder of this run")
    assert run(dataset=dataset, output=str(tmp_path / "here"), dry_run=True).is_completed()
