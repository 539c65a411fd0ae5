"""Memory that is too short, at every stage: smaller batches, tiles, and in the end a reason; never another image."""

import pytest
import torch

from t2i_core.drawing import Timings
from t2i_core.engine import draw as module
from t2i_core.engine.draw import Drawer
from t2i_core.errors import ImageFailure
from t2i_core.spec import ImageSpec

CPU = torch.device("cpu")


def spec(number, **values):
    defaults = {"height": 8, "width": 8, "steps": 1, "dtype": "float32"}
    return ImageSpec(model="m", prompt=f"p{number}", seed=number, **defaults | values)


class FakeStages:
    """Draws an image full of its seed; what runs out of memory, or fails, is set by the test."""

    device = CPU

    def __init__(self, *, apart=True, max_batch=8, encodes=lambda spec: True, decodes=lambda spec, tiled: True):
        self.decodes_apart = apart
        self.max_batch, self.encodes, self.decodes = max_batch, encodes, decodes
        self.tiling = False
        self.calls = []
        self.window = 0

    def encoding(self):
        from contextlib import nullcontext

        return nullcontext()

    def encode(self, spec):
        if not self.encodes(spec):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    def encode_on(self):
        return False

    def denoise(self, specs, on_step):
        on_step()
        self.calls.append(len(specs))
        if len(specs) > self.max_batch or (not self.decodes_apart and not self.decodes(specs[0], self.tiling)):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        if any(s.seed == 99 for s in specs):
            raise ValueError("unlucky")
        return torch.stack([torch.full((3, s.height, s.width), s.seed / 100) for s in specs])

    def decode(self, denoised, index, spec):
        if self.decodes_apart and not self.decodes(spec, self.tiling):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return denoised[index]

    def images_a_call(self, batch_size):
        return batch_size

    def set_vae_tiling(self, on):
        self.tiling = on
        return True


def images(stages, specs, batch_size=4, drawer=None):
    drawer = drawer or Drawer(stages, "cpu", {})
    batches = [specs[i : i + batch_size] for i in range(0, len(specs), batch_size)]
    return [image for part in drawer.draw(batches, batch_size, lambda: False, Timings()) for image in part]


def shown(results):
    """What each image shows: its seed, or the text of its error."""
    return [str(r) if isinstance(r, Exception) else round(float(r.pixels()[0, 0, 0]) * 100) for r in results]


def test_a_batch_is_halved_until_it_fits_and_the_size_is_kept_and_recorded(caplog):
    stages = FakeStages(max_batch=2)
    results = images(stages, [spec(i) for i in range(1, 17)], batch_size=8)
    assert shown(results) == list(range(1, 17))
    assert {r.batch_size for r in results} == {2}
    assert stages.calls == [8, 4] + [2] * 8
    assert [r.message for r in caplog.records] == [
        "memory is short: batches of 4 instead of 8 from now on",
        "memory is short: batches of 2 instead of 4 from now on",
    ]


def test_what_fits_is_learned_by_shape():
    stages = FakeStages(max_batch=2)
    drawer = Drawer(stages, "cpu", {})
    images(stages, [spec(1)] * 4, drawer=drawer)
    stages.calls.clear()
    images(stages, [spec(1, height=16)] * 4, drawer=drawer)
    images(stages, [spec(1)] * 4, drawer=drawer)
    assert stages.calls == [4, 2, 2, 2, 2]


def test_a_small_batch_says_nothing_of_larger_ones():
    stages = FakeStages()
    drawer = Drawer(stages, "cpu", {})
    for size in (1, 4):
        images(stages, [spec(1)] * 4, batch_size=size, drawer=drawer)
    assert stages.calls == [1, 1, 1, 1, 4]


def test_decoding_that_does_not_fit_is_done_in_tiles_without_denoising_again(caplog):
    stages = FakeStages(decodes=lambda spec, tiled: tiled)
    results = images(stages, [spec(i) for i in range(1, 9)])
    assert shown(results) == list(range(1, 9))
    assert stages.calls == [4, 4]
    assert all(r.vae_tiling for r in results)
    assert [r.message for r in caplog.records] == ["memory is short: 8x8 images are decoded in tiles from now on"]


def test_tiles_are_for_the_shape_that_needs_them():
    stages = FakeStages(decodes=lambda spec, tiled: tiled == (spec.height > 8))
    drawer = Drawer(stages, "cpu", {})
    for height in (8, 16, 8, 16):
        results = images(stages, [spec(1, height=height)] * 4, drawer=drawer)
        assert {r.vae_tiling for r in results} == {height > 8}


def test_a_pipeline_that_is_one_call_is_halved_first_and_tiled_last():
    stages = FakeStages(apart=False, decodes=lambda spec, tiled: tiled)
    results = images(stages, [spec(i) for i in range(1, 5)])
    assert shown(results) == [1, 2, 3, 4]
    assert stages.calls == [4, 2, 1, 1, 1, 1, 1]
    assert all(r.vae_tiling and r.batch_size == 1 for r in results)


@pytest.fixture
def card(monkeypatch):
    """A CUDA card as far as reasons go: what others hold of it is set by the test."""
    monkeypatch.setattr(Card, "others", 0)
    monkeypatch.setattr(module, "memory_of_others", lambda device: Card.others)
    monkeypatch.setattr(module, "release_memory", lambda device: None)
    monkeypatch.setattr(FakeStages, "device", Card)
    return Card


class Card:
    """Stands where a torch.device stands."""

    type = "card"
    others = 0


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
    (lasting,) = images(stages, [spec(1)])
    card.others = 9 * 10**9
    (passing,) = images(stages, [spec(1)])
    assert isinstance(lasting, ImageFailure)
    assert not isinstance(passing, ImageFailure)
    assert "other processes hold 9.0 GB" in str(passing)


def test_an_error_that_is_not_about_memory_reaches_its_batch_alone():
    stages = FakeStages()
    results = shown(images(stages, [spec(i) for i in (1, 2, 3, 4, 5, 99, 7, 8, 9, 10, 11, 12)]))
    assert results == [1, 2, 3, 4, *["unlucky"] * 4, 9, 10, 11, 12]
    assert stages.calls == [4, 4, 4]


def test_an_error_in_a_prompt_reaches_its_image_alone():
    stages = FakeStages()

    def encode(spec):
        if spec.seed == 2:
            raise ValueError("no such token")

    stages.encode = encode
    assert shown(images(stages, [spec(i) for i in range(1, 5)])) == [1, "no such token", 3, 4]
    assert stages.calls == [4]  # the shape stays, with padding for the one that is left out


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


def test_a_tokenizer_that_fails_costs_no_image(caplog):
    def lengths(spec):
        raise ValueError("incorrect image source")

    (image,) = images(FakeStages(), [spec(1)], drawer=Drawer(FakeStages(), "cpu", {}, lengths))
    assert shown([image]) == [1]
    assert image.prompt_lengths == ()
    assert "cannot be counted: incorrect image source" in caplog.text


def test_tiles_that_the_user_chose_are_left_alone():
    stages = FakeStages()
    stages.tiling = True
    images(stages, [spec(1)] * 8)
    assert stages.tiling


def test_an_error_keeps_no_tensors_alive():
    stages = FakeStages()
    (error, *_) = images(stages, [spec(99)])
    assert error.__traceback__ is None
