"""The outcome of a call is a value or an error, and an error leaves no memory behind."""

import gc
import weakref

import pytest
import torch

from t2i_core.engine import attempt as module
from t2i_core.engine.attempt import OutOfMemory, attempt, one_line
from t2i_core.errors import ConfigError, Stopped

CPU = torch.device("cpu")


class Held:
    """What a failing call has in its frame."""


def test_a_value_is_returned_and_computed_without_gradients():
    weight = torch.ones(1, requires_grad=True)
    outcome = attempt(CPU, lambda x: x * weight, 2)
    assert outcome.error is None
    assert not outcome.out_of_memory
    assert outcome.value.item() == 2
    assert not outcome.value.requires_grad


def test_weights_may_move_in_a_call():
    """Offloading moves weights in a call, and those that torchao quantized cannot be moved in inference mode."""
    outcome = attempt(CPU, lambda: (torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.ones(1)))
    in_inference_mode, with_gradients, made = outcome.value
    assert not in_inference_mode
    assert not with_gradients
    assert not made.is_inference()


@pytest.mark.parametrize(
    ("message", "line"),
    [("", "ValueError"), ("Errors:\n\tthis one", "Errors: this one"), ("x" * 400, f"{'x' * 299}…")],
    ids=["none", "two lines", "long"],
)
def test_the_message_of_an_error_is_one_line(message, line):
    assert one_line(ValueError(message)) == line


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
    ],
    ids=str,
)
def test_too_little_memory_is_told_from_other_errors(error):
    def fail():
        raise error

    outcome = attempt(CPU, fail)
    assert outcome.out_of_memory
    assert type(outcome.error) is OutOfMemory
    assert str(outcome.error) == str(error)


def test_another_error_is_returned_as_it_was_raised_without_its_traceback():
    def fail():
        raise ValueError("unlucky")

    outcome = attempt(CPU, fail)
    assert not outcome.out_of_memory
    assert (type(outcome.error), str(outcome.error)) == (ValueError, "unlucky")
    assert outcome.error.__traceback__ is None


@pytest.mark.parametrize("error", [Stopped(), ConfigError(["device: wrong"]), KeyboardInterrupt()], ids=repr)
def test_what_concerns_more_than_an_image_is_raised(error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        attempt(CPU, fail)


def test_what_a_call_held_is_free_before_memory_is_given_back(monkeypatch):
    held, seen = [], []

    def fail():
        tensors = Held()
        held.append(weakref.ref(tensors))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "release_memory", lambda device: seen.append((device, held[-1]())))
    gc.disable()  # reference counts alone have to suffice
    try:
        outcome = attempt(CPU, fail)
        assert seen == [(CPU, None)]
        assert outcome.error.__traceback__ is None
        assert outcome.error.__context__ is None
    finally:
        gc.enable()


def test_memory_is_given_back_only_where_it_was_too_short(monkeypatch):
    monkeypatch.setattr(module, "release_memory", lambda device: pytest.fail("given back"))

    def fail():
        raise ValueError("unlucky")

    attempt(CPU, fail)
    attempt(CPU, lambda: 1)
