"""Memory that is too short, at every stage: smaller batches, tiles, and in the end a reason; never another image."""

import weakref
from types import SimpleNamespace

import pytest
import torch

from t2i_core.engine import attempt as attempt_module
from t2i_core.engine import batch_generator as module
from t2i_core.engine import device as device_module
from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.errors import ImageFailure, ModelError, Stopped
from t2i_core.generation.interface import TextLength, Timings
from tests.engine.fake_stages import FakeStages, images, shown, spec


def test_a_batch_is_halved_until_it_fits_and_the_size_is_kept_and_recorded(caplog):
    stages = FakeStages(max_batch=2)
    results = images(stages, [spec(i) for i in range(1, 17)], batch_size=8)
    assert shown(results) == list(range(1, 17))
    assert {r.batch_size for r in results} == {2}
    assert stages.sizes == [8, 4] + [2] * 8
    assert [r.message for r in caplog.records] == [
        "memory is short: batches of 4 instead of 8 from now on",
        "memory is short: batches of 2 instead of 4 from now on",
    ]


def test_what_fits_is_learned_by_shape():
    stages = FakeStages(max_batch=2)
    generator = BatchGenerator(stages, "cpu", {})
    images(stages, [spec(1)] * 4, generator=generator)
    stages.calls.clear()
    images(stages, [spec(1, height=16)] * 4, generator=generator)
    images(stages, [spec(1)] * 4, generator=generator)
    assert stages.sizes == [4, 2, 2, 2, 2]


def test_a_small_batch_says_nothing_of_larger_ones():
    stages = FakeStages()
    generator = BatchGenerator(stages, "cpu", {})
    for size in (1, 4):
        images(stages, [spec(1)] * 4, batch_size=size, generator=generator)
    assert stages.sizes == [1, 1, 1, 1, 4]


def test_the_tail_of_a_batch_is_padded_with_its_last_image_and_the_padding_is_thrown_away():
    stages = FakeStages()
    results = images(stages, [spec(i) for i in range(1, 7)], batch_size=4)
    assert shown(results) == [1, 2, 3, 4, 5, 6]
    assert [[s.seed for s in call] for call in stages.calls] == [[1, 2, 3, 4], [5, 6, 6, 6]]
    assert {r.batch_size for r in results} == {4}


def test_the_tail_of_a_batch_that_was_halved_is_padded_to_the_smaller_size():
    stages = FakeStages(max_batch=2)
    results = images(stages, [spec(i) for i in (1, 2, 3)], batch_size=4)
    assert shown(results) == [1, 2, 3]
    assert [[s.seed for s in call] for call in stages.calls] == [[1, 2, 3, 3], [1, 2], [3, 3]]


def test_decoding_that_does_not_fit_is_done_in_tiles_without_denoising_again(caplog):
    stages = FakeStages(decodes=lambda spec, tiled: tiled)
    results = images(stages, [spec(i) for i in range(1, 9)])
    assert shown(results) == list(range(1, 9))
    assert stages.sizes == [4, 4]
    assert all(r.vae_tiling for r in results)
    assert [r.message for r in caplog.records] == ["memory is short: 8x8 images are decoded in tiles from now on"]


def test_decoding_is_tried_again_before_it_is_done_in_tiles():
    attempts = []

    def decodes(spec, tiled):
        attempts.append(tiled)
        return len(attempts) > 1  # what denoising left behind was given back

    (image,) = images(FakeStages(decodes=decodes), [spec(1)], batch_size=1)
    assert shown([image]) == [1]
    assert not image.vae_tiling
    assert attempts == [False, False]


def test_encoding_is_tried_again_after_memory_was_given_back():
    attempts = []

    def encodes(spec):
        attempts.append(spec.seed)
        return attempts.count(spec.seed) > 1

    assert shown(images(FakeStages(encodes=encodes), [spec(1), spec(2)])) == [1, 2]
    assert attempts == [1, 1, 2, 2]


def test_decoding_that_does_not_fit_in_tiles_either_fails_after_two_attempts():
    attempts = []

    def decodes(spec, tiled):
        attempts.append((spec.seed, tiled))
        return False

    one, two = images(FakeStages(decodes=decodes), [spec(1), spec(2)])
    assert "decoding it took more memory" in str(one)
    assert "decoding it took more memory" in str(two)
    assert attempts == [(1, False), (1, False), (1, True), (2, True), (2, True)]


def test_tiles_are_for_the_shape_that_needs_them():
    stages = FakeStages(decodes=lambda spec, tiled: tiled == (spec.height > 8))
    generator = BatchGenerator(stages, "cpu", {})
    for height in (8, 16, 8, 16):
        results = images(stages, [spec(1, height=height)] * 4, generator=generator)
        assert {r.vae_tiling for r in results} == {height > 8}


def test_a_pipeline_that_is_one_call_is_halved_first_and_tiled_last():
    stages = FakeStages(apart=False, decodes=lambda spec, tiled: tiled)
    results = images(stages, [spec(i) for i in range(1, 5)])
    assert shown(results) == [1, 2, 3, 4]
    assert stages.sizes == [4, 2, 1, 1, 1, 1, 1]
    assert all(r.vae_tiling and r.batch_size == 1 for r in results)


def test_tiles_are_for_the_shape_that_needs_them_in_a_pipeline_that_is_one_call():
    stages = FakeStages(apart=False, decodes=lambda spec, tiled: tiled == (spec.height > 8))
    generator = BatchGenerator(stages, "cpu", {})
    for height in (8, 16, 8, 16):
        (image,) = images(stages, [spec(1, height=height)], batch_size=1, generator=generator)
        assert image.vae_tiling == (height > 8)


def test_a_pipeline_that_is_one_call_and_does_not_fit_in_tiles_either_fails():
    stages = FakeStages(apart=False, max_batch=0)
    (error,) = images(stages, [spec(1)], batch_size=2)
    assert isinstance(error, MemoryError)
    assert stages.sizes == [2, 1, 1]
    assert stages.tiling


def test_denoising_that_does_not_fit_alone_is_not_tried_in_tiles_which_are_for_decoding():
    stages = FakeStages(max_batch=0)
    (error,) = images(stages, [spec(1)], batch_size=2)
    assert isinstance(error, MemoryError)
    assert stages.sizes == [2, 1]
    assert not stages.tiling


class Card:
    """A CUDA card as far as reasons go, in place of a torch.device."""

    type = "card"
    others = 0  # bytes that other processes hold of it


@pytest.fixture
def card(monkeypatch):
    """The device of all stages; a test may set what other processes hold of it."""
    monkeypatch.setattr(Card, "others", 0)
    monkeypatch.setattr(module, "memory_of_others", lambda device: Card.others)
    monkeypatch.setattr(attempt_module, "release_memory", lambda device: None)
    monkeypatch.setattr(FakeStages, "device", Card)
    return Card


@pytest.mark.parametrize("stage", ["encoding its prompt", "denoising it", "decoding it"])
def test_an_image_that_does_not_fit_alone_fails_with_what_would_help_and_the_others_go_on(card, stage):
    stages = FakeStages()
    if stage == "encoding its prompt":
        stages.encodes = lambda spec: spec.seed != 2
    elif stage == "decoding it":
        stages.decodes = lambda spec, tiled: spec.seed != 2
    else:
        # In a batch of its own, for which memory never suffices.
        stages.denoise = lambda specs, on_step, real=stages.denoise: (
            real([*specs] * 100, on_step) if specs[0].seed == 2 else real(specs, on_step)
        )
    results = shown(images(stages, [spec(i) for i in range(1, 5)], batch_size=1))
    assert results[0::2] == [1, 3]
    assert results[3] == 4
    assert f"does not fit alone into the memory of cpu ({stage})" in results[1]
    assert "--text-encoder staged" in results[1]


def test_on_a_card_that_others_use_it_may_fit_later(card):
    stages = FakeStages(max_batch=0)
    (permanent,) = images(stages, [spec(1)])
    card.others = 9 * 10**9
    (transient,) = images(stages, [spec(1)])
    assert isinstance(permanent, ImageFailure)
    assert not isinstance(transient, ImageFailure)
    assert "other processes hold 9.0 GB" in str(transient)


def test_on_the_cpu_it_may_fit_later():
    (error,) = images(FakeStages(max_batch=0), [spec(1)], batch_size=1)
    assert type(error) is MemoryError
    assert str(error).startswith("denoising it took more memory than this machine has free: [enforce fail")


def test_an_error_that_is_not_about_memory_reaches_its_batch_alone():
    stages = FakeStages()
    results = shown(images(stages, [spec(i) for i in (1, 2, 3, 4, 5, 99, 7, 8, 9, 10, 11, 12)]))
    assert results == [1, 2, 3, 4, *["unlucky"] * 4, 9, 10, 11, 12]
    assert stages.sizes == [4, 4, 4]


def test_an_error_in_a_prompt_reaches_its_image_alone():
    stages = FakeStages()

    def encode(spec):
        if spec.seed == 2:
            raise ValueError("no such token")

    stages.encode = encode
    assert shown(images(stages, [spec(i) for i in range(1, 5)])) == [1, "no such token", 3, 4]
    # The shape stays, with padding for the image that is left out.
    assert [[s.seed for s in call] for call in stages.calls] == [[1, 3, 4, 4]]


def test_an_error_in_decoding_reaches_its_image_alone():
    stages = FakeStages()

    def decode(denoised, index, spec, real=stages.decode):
        if spec.seed == 2:
            raise ValueError("no pixels")
        return real(denoised, index, spec)

    stages.decode = decode
    assert shown(images(stages, [spec(i) for i in range(1, 5)])) == [1, "no pixels", 3, 4]


def test_a_copy_that_does_not_fit_reaches_its_image_alone(monkeypatch):
    real = module.to_host

    def to_host(image):
        if round(float(image[0, 0, 0]) * 100) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(image)

    monkeypatch.setattr(module, "to_host", to_host)
    one, two, three = images(FakeStages(), [spec(1), spec(2), spec(3)])
    assert shown([one, three]) == [1, 3]
    assert "copying it to the host" in str(two)


def test_an_image_has_the_lengths_of_its_prompt_and_the_batch_size_that_the_model_saw():
    stages = FakeStages()
    stages.images_a_call = lambda batch_size: batch_size // 2
    generator = BatchGenerator(stages, "cpu", {}, lambda spec: [TextLength("CLIP", spec.seed, 77, None)])
    results = images(stages, [spec(1), spec(2)], generator=generator)
    assert [image.prompt_lengths for image in results] == [[TextLength("CLIP", n, 77, None)] for n in (1, 2)]
    assert [image.batch_size for image in results] == [2, 2]


@pytest.mark.parametrize("apart", [True, False])
def test_the_seconds_of_an_image_are_its_share_of_the_denoising_and_its_own_decoding(monkeypatch, apart):
    now = [0.0]
    monkeypatch.setattr(device_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    stages = FakeStages(apart=apart)

    def taking(seconds, real):
        def call(*arguments):
            now[0] += seconds
            return real(*arguments)

        return call

    stages.encode = taking(1.0, stages.encode)
    stages.denoise = taking(8.0, stages.denoise)
    if apart:
        stages.decode = taking(0.5, stages.decode)
    timings = Timings()
    (results,) = BatchGenerator(stages, "cpu", {}).generate([[spec(1), spec(2)]], 4, lambda: False, timings)
    # Two of the four images of the call are padding.
    assert [image.seconds() for image in results] == [4.5 if apart else 4.0] * 2
    assert timings.totals() == {"encode": 2.0} | ({"denoise": 8.0, "decode": 1.0} if apart else {"call": 8.0})


def test_a_tokenizer_that_fails_costs_no_image(caplog):
    def lengths(spec):
        raise ValueError("incorrect image source")

    (image,) = images(FakeStages(), [spec(1)], generator=BatchGenerator(FakeStages(), "cpu", {}, lengths))
    assert shown([image]) == [1]
    assert image.prompt_lengths == ()
    assert "cannot be counted: incorrect image source" in caplog.text


def test_tiles_that_the_user_chose_are_left_alone():
    stages = FakeStages()
    stages.tiling = True
    images(stages, [spec(1)] * 8)
    assert stages.tiling


@pytest.mark.parametrize("apart", [True, False])
def test_tiles_that_the_user_chose_are_left_alone_after_a_shape_that_does_not_fit_in_tiles(apart):
    stages = FakeStages(apart=apart, decodes=lambda spec, tiled: spec.height == 8)
    stages.tiling = True
    generator = BatchGenerator(stages, "cpu", {})
    (large,) = images(stages, [spec(1, height=16)], batch_size=1, generator=generator)
    assert isinstance(large, MemoryError)
    (small,) = images(stages, [spec(1)], batch_size=1, generator=generator)
    assert shown([small]) == [1]
    assert stages.tiling


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
def test_an_error_of_the_user_ends_the_work(stage):
    stages = FakeStages()

    def fail(*arguments):
        raise ModelError("no such adapter")

    setattr(stages, stage, fail)
    with pytest.raises(ModelError, match="no such adapter"):
        images(stages, [spec(1)])


def test_a_stop_ends_the_work_before_the_next_batch_is_encoded():
    stages = FakeStages()
    generator = BatchGenerator(stages, "cpu", {})
    answers = iter([False, False, True])  # for the first batch: its texts, its one step
    results = generator.generate([[spec(1)], [spec(2)]], 1, lambda: next(answers), Timings())
    assert shown(next(results)) == [1]
    with pytest.raises(Stopped):
        next(results)
    assert stages.sizes == [1]


def test_an_error_keeps_no_tensors_alive():
    (error, *_) = images(FakeStages(), [spec(99)])
    assert error.__traceback__ is None


def test_an_image_keeps_the_tensors_of_its_batch_alive_no_longer_than_the_batch():
    held = []
    stages = FakeStages()

    def denoise(specs, on_step, real=stages.denoise):
        denoised = real(specs, on_step)
        held.append(weakref.ref(denoised))
        return denoised

    stages.denoise = denoise
    stages.decode = lambda denoised, index, spec: denoised[index].clone()
    results = images(stages, [spec(1), spec(2)])
    assert shown(results) == [1, 2]
    assert [tensor() for tensor in held] == [None]
