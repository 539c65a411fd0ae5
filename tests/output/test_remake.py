"""The command that makes an image again says everything that its record says, and survives a shell."""

import json
import shlex
import subprocess

import pytest

from flows.cli import command_line
from t2i_core.generation.interface import LoadConfig
from t2i_core.output.provenance import SCHEMA
from t2i_core.output.remake import remake
from t2i_core.spec import ARGUMENTS
from tests.builders import image_record, image_spec

OPTIONS = {
    "model": "models/my model.safetensors",
    "base": "owner/name",
    "transformer": "-odd'name.gguf",
    "variant": "fp16",
    "revision": "main",
    "lora": ["a b.safetensors:0.8", "owner/style"],
    "lora_partial": True,
    "prepare": "mine.py:prepare",
}
SAMPLING = {
    "height": 64,
    "width": 96,
    "steps": 7,
    "guidance_scale": 0.0,
    "true_cfg_scale": 2.5,
    "max_sequence_length": 24,
    "scheduler": "DDIMScheduler",
    "scheduler_options": '{"use_karras_sigmas": true}',
    "dtype": "float16",
    "quantization": "nf4",
    "attention": "cudnn",
    "tf32": True,
    "step_cache": "magcache",
}


def record(spec=None, **facts):
    return image_record(spec or image_spec(3), **facts).header()


def parsed(again, name="again"):
    """The options as the command line understands the command that a shell makes of the text."""
    data, command = again.commands("text2image", name).split("\n")
    words = subprocess.run(
        ["sh", "-c", command.replace("text2image", "printf '%s\\0'", 1)], capture_output=True, text=True, check=True
    ).stdout.split("\0")[:-1]
    row = subprocess.run(["sh", "-c", data.partition(" > ")[0]], capture_output=True, text=True, check=True).stdout
    assert data.endswith(f" > {shlex.quote(name)}.jsonl") or data.endswith(f" > {shlex.quote(f'{name}.jsonl')}")
    return json.loads(row), command_line().parse(words).options.model_dump(exclude_unset=True)


def test_every_option_that_decides_pixels_is_in_the_command():
    """Not those that exclude each other: no check of the configuration is wanted here, but each option's own."""
    tuning = {"offload": "model", "prepare": "mine.py:prepare"}
    spec = image_spec(3, **{name: value for name, value in SAMPLING.items() if name not in ("scheduler", "step_cache")})
    facts = record(spec, options=OPTIONS, commit="c" * 40, batch_size=3, tuning=tuning)
    row, options = parsed(remake(spec.canonical(), facts), "it's")
    assert row == {"conversations": [{"role": "user", "content": "p3"}], "generation": {"seed": 3}}
    expected = {name: value for name, value in SAMPLING.items() if name not in ("scheduler", "step_cache")}
    expected |= OPTIONS | {"revision": "c" * 40, "batch_size": 3, "offload": "model"}
    expected |= {"scheduler_options": {"use_karras_sigmas": True}, "dataset": "it's.jsonl", "output": "it's"}
    assert options == expected


@pytest.mark.parametrize("name", ["scheduler", "step_cache"])
def test_options_that_exclude_others_are_in_the_command(name):
    spec = image_spec(3, **{name: SAMPLING[name]})
    assert parsed(remake(spec.canonical(), record(spec)))[1][name] == SAMPLING[name]


def test_every_argument_of_a_spec_is_known_to_this_test():
    by_hand = {"prompt", "seed", "negative_prompt", "model", "adapters", "prepare", "pixels_version"}
    assert set(ARGUMENTS) == by_hand | set(SAMPLING)


def test_what_changes_the_last_bits_of_an_image_is_in_the_command():
    load = LoadConfig("m", "float32", "cpu", offload="none", compile=True, compile_mode="max-autotune")
    _, options = parsed(remake(image_spec(0).canonical(), record(tuning=load.tuning())))
    assert (options["compile"], options["compile_mode"]) == (True, "max-autotune")


@pytest.mark.parametrize(
    "text",
    [
        'it\'s a "fox" $HOME `ls` \\n %s !!',
        "a\nfox\r\t",
        "一只狐狸 🦊 \u202e",
        "-fox",
        "\x1b[31m",
        " a fox ",
        '{"a": 1}',
    ],
)
def test_any_text_survives_the_shell(text):
    spec = image_spec(0, prompt=text, negative_prompt=text)
    again = remake(spec.canonical(), record(spec))
    assert again.commands("text2image", "again").isascii()
    row, options = parsed(again)
    assert row["conversations"][0]["content"] == text
    assert row["generation"] == {"seed": 0, "negative_prompt": text}
    assert options["negative_prompt"] == ""  # the row has it; models that need one for a scale are content


def test_a_row_of_the_provenance_table_makes_the_same_command():
    spec = image_spec(0, adapters=(("a" * 64, 0.5),), negative_prompt="")
    options = {"model": "demo", "lora": ["x.safetensors:0.5"]}
    facts = record(spec, options=options, tuning={"offload": "group"}, batch_size=4)
    row = dict.fromkeys(SCHEMA.names) | spec.to_row() | facts
    row |= {name: json.dumps(facts[name]) for name in ("options", "tuning")}
    assert remake(row, row) == remake(spec.canonical(), facts)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("demo", {"model": "demo"}),
        ("a.safetensors, base owner/name", {"model": "a.safetensors", "base": "owner/name"}),
        ("flux-dev, transformer x.gguf", {"model": "flux-dev", "transformer": "x.gguf"}),
        ("a.st, base b, transformer c", {"model": "a.st", "base": "b", "transformer": "c"}),
    ],
)
def test_an_image_of_an_earlier_version_names_its_model_as_one_text(name, options):
    again = remake(image_spec(0).canonical(), record(model_name=name, tuning={"prepare": "m:f"}))
    assert again.options.items() >= {**options, "prepare": "m:f"}.items()
    assert again.missing == ()


def test_what_an_image_of_an_earlier_version_does_not_tell_is_said():
    spec = image_spec(0, adapters=(("a" * 64, 0.5),))
    (missing,) = remake(spec.canonical(), record(spec)).missing
    assert "--lora FILE:0.5" in missing
    assert "a" * 64 in missing
    assert remake(spec.canonical(), record(spec, options={"model": "m", "lora": ["x:0.5"]})).missing == ()
