"""A prompt that a text encoder cuts is reported: its length, the limit, and the part that the encoder never sees."""

from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from t2i_core.bundled import DEMO_MODEL
from t2i_core.engine.load import load_pipeline
from t2i_core.engine.tokens import TokenCounter
from t2i_core.generation.interface import LoadConfig
from t2i_core.spec import ImageSpec

LONG = "a fox in the snow at night beside a cat in the snow at night and a house in the snow at night under a moon"


@pytest.fixture(scope="module")
def count():
    return TokenCounter(load_pipeline(LoadConfig(str(DEMO_MODEL), "float32", "cpu")))


def spec(prompt, length=24):
    size = {"height": 64, "width": 64, "steps": 1, "dtype": "float32"}
    return ImageSpec(model="demo", prompt=prompt, seed=0, max_sequence_length=length, **size)


def test_every_text_encoder_has_its_own_limit(count):
    clip, t5 = count(spec("a fox in the snow", length=5))
    assert (clip.encoder, clip.tokens, clip.limit, clip.cut) == ("CLIPTextModel", 6, 24, None)
    assert (t5.encoder, t5.tokens, t5.limit) == ("T5EncoderModel", 6, 5)
    assert t5.cut == "snow"  # four words and the end token are five


def test_what_is_cut_is_what_the_encoder_does_not_see(count):
    clip, _ = count(spec(LONG))
    words = LONG.split()
    assert clip.tokens == len(words) + 1
    assert clip.cut.split() == words[23:]


def test_a_prompt_that_just_fits_is_not_cut(count):
    text = " ".join(LONG.split()[:23])
    assert [length.cut for length in count(spec(text))] == [None, None]


def test_a_tokenizer_without_a_limit_has_none(count):
    assert [length.limit for length in count(spec("a fox", length=None))] == [24, None]

    class Endless:
        model_max_length = 10**30

        def __call__(self, text, truncation, verbose):
            return SimpleNamespace(input_ids=text.split())

    class Processor:
        """Instead of a tokenizer where a pipeline reads images, too."""

        tokenizer = Endless()

    class CLIPTextModel:
        pass

    class Pipeline:
        tokenizer, text_encoder = Processor(), CLIPTextModel()

    (length,) = TokenCounter(Pipeline())(spec("a fox"))
    assert (length.tokens, length.limit, length.cut) == (2, None, None)


def test_the_summary_says_how_many_prompts_were_cut_and_where(run, output, prompts, caplog):
    dataset = prompts("a fox", LONG, "a cat", LONG + " again")
    assert run(dataset=dataset).is_completed()
    line = next(line for line in caplog.text.splitlines() if line.startswith("cut"))
    assert "2 images have a prompt longer than a text encoder takes (rows 1, 3)" in line
    rows = pq.read_table(output.folder / "images.parquet").to_pylist()
    assert [any(length["cut"] for length in row["prompt_lengths"]) for row in rows] == [False, True, False, True]
    assert rows[0]["prompt_lengths"][0] == {"encoder": "CLIPTextModel", "tokens": 3, "limit": 24, "cut": None}
    caplog.clear()  # an unchanged run says it again
    run(dataset=dataset)
    assert "(rows 1, 3)" in caplog.text
    assert output.run()["accounting"]["images_cut"] == 2
