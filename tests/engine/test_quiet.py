"""The libraries print nothing of their own; a process of its own shows it, as importing is a part of it."""

import logging
import subprocess
import sys

from t2i_core.engine.quiet import silence_diffusers, silence_libraries

LOAD_DEMO = """
import sys
from t2i_core.engine.quiet import silence_libraries
silence_libraries()
assert "diffusers" not in sys.modules
import t2i_core.engine.load as load
from t2i_core.bundled import DEMO_MODEL
from t2i_core.generation.interface import LoadConfig
load.load_model(LoadConfig(str(DEMO_MODEL), "float32", "cpu"))
"""


def python(source):
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_diffusers_and_loading_a_model_prints_nothing():
    assert python(LOAD_DEMO) == ""


def test_importing_the_package_imports_no_library():
    python(
        "import sys, t2i_core.engine, t2i_core.engine.quiet; assert not {'torch', 'transformers'} & set(sys.modules)"
    )


def test_diffusers_own_warnings_of_what_is_reported_here_are_silenced_and_others_are_not(capsys):
    silence_diffusers()
    logger = logging.getLogger("diffusers.pipelines.flux.pipeline_flux")
    handlers = logging.getLogger("diffusers").handlers
    assert handlers

    def passes(message):
        record = logger.makeRecord(logger.name, logging.WARNING, "file", 1, message, (), None)
        return all(handler.filter(record) for handler in handlers)

    assert not passes("The following part of your input was truncated because CLIP can only handle 77 tokens")
    assert not passes(
        "Potential NSFW content was detected in one or more images. A black image will be returned instead."
    )
    assert passes("something else")


def test_what_a_newer_torchao_makes_diffusers_and_torch_say_is_silenced(caplog):
    silence_libraries()
    logging.getLogger("diffusers.quantizers.torchao.torchao_quantizer").warning(
        "Unable to import `torchao` Tensor objects"
    )
    logging.getLogger("torch.utils._pytree").warning("%s: Calling register_constant() on Enum subclasses", "Kernel")
    assert caplog.text == ""
    logging.getLogger("torch.utils._pytree").warning("something else")
    assert "something else" in caplog.text


def test_to_silence_twice_adds_one_filter():
    silence_diffusers()
    filters = [len(handler.filters) for handler in logging.getLogger("diffusers").handlers]
    silence_diffusers()
    assert [len(handler.filters) for handler in logging.getLogger("diffusers").handlers] == filters
