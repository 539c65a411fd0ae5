"""What a text encoder cuts of a prompt, and what it does not know of it: counted by the tokenizers alone."""

import json
import shutil
import subprocess
import sys
from inspect import signature

import pyarrow.parquet as pq
import pytest
from diffusers import StableDiffusionXLPipeline
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerBase

from t2i_core.bundled import DEMO_MODEL
from t2i_core.engine.load import load_pipeline
from t2i_core.engine.tokens import FileTokenizer, PipelineTokenizer, TokenCounter
from t2i_core.generation.interface import LoadConfig, is_unread
from t2i_core.models.text_encoders import ARGUMENT, OWN, Limit, TextEncoder
from t2i_core.spec import ImageSpec
from tests import tiny_pipelines
from tests.tiny_tokenizers import like_a_language_model, like_bert, like_clip, like_t5, like_t5_without_json

LONG = "a fox in the snow at night beside a cat in the snow at night and a house in the snow at night under a moon"
CHINESE = "一只狐狸在雪地里"
MAKERS = {"t5": like_t5, "clip": like_clip, "bert": like_bert, "language model": like_a_language_model}


@pytest.fixture(scope="module", params=["pipeline", "folder"])
def count(request):
    if request.param == "folder":
        return TokenCounter.of_folder(DEMO_MODEL)
    return TokenCounter.of_pipeline(load_pipeline(LoadConfig(str(DEMO_MODEL), "float32", "cpu")))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    return {kind: make(root / kind.replace(" ", "_")) for kind, make in MAKERS.items()}


@pytest.fixture(scope="module", params=["tokenizers", "transformers"])
def length_of(request, folders):
    """A function: (kind of tokenizer, prompt) -> its length, by either way to read the tokenizer."""

    def read(folder):
        if request.param == "tokenizers":
            return FileTokenizer(folder)
        return PipelineTokenizer(AutoTokenizer.from_pretrained(folder))

    tokenizers = {kind: read(folder) for kind, folder in folders.items()}

    def length_of(kind, prompt, limit=OWN, argument=None):
        counter = TokenCounter([(TextEncoder("Encoder", "tokenizer", limit), tokenizers[kind])], {})
        ((length,),) = counter.count([prompt], argument)
        return length

    return length_of


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


def test_prompts_are_counted_together_as_one_by_one(count):
    prompts = ["a fox", LONG, "", CHINESE, "a cat"]
    assert count.count(prompts, 9) == [count(spec(prompt, 9)) for prompt in prompts]


def test_a_tokenizer_without_a_limit_cuts_nothing(length_of):
    length = length_of("bert", "a fox " * 500)
    assert (length.tokens > 1000, length.limit, length.cut) == (True, None, None)


def test_what_is_cut_begins_where_the_end_token_takes_the_last_place(length_of):
    for kind in MAKERS:
        whole = length_of(kind, "a fox in the snow")
        ends = kind != "language model"  # which puts none
        cut = length_of(kind, "a fox in the snow", Limit(fixed=whole.tokens - 1)).cut
        longer = length_of(kind, "a fox in the snow", Limit(fixed=whole.tokens - 2)).cut
        assert cut
        assert len(cut) < len(longer)
        last = length_of(kind, "a fox in the snow", Limit(fixed=whole.tokens)).cut
        assert last is None
        if not ends:
            assert "a fox in the snow".endswith(cut)


def test_text_of_the_pipelines_own_before_the_prompt_takes_room(length_of):
    before = "a photo of "
    taken = length_of("language model", before).tokens
    length = length_of("language model", "a fox", Limit(argument=True, before=before), argument=taken + 2)
    assert (length.limit, length.cut is not None) == (2, length.tokens > 2)


@pytest.mark.parametrize(
    ("kind", "prompt", "unread"),
    [
        ("t5", "a fox in the snow", 0),
        ("t5", CHINESE, 1),
        ("t5", "ثعلب في الثلج", 1),
        ("t5", "🦊🦊🦊", 1),
        ("t5", f"a fox in the snow {CHINESE}", 8 / 21),
        ("t5", "a fox in the snow 🦊", 1 / 14),
        ("t5", "café", 0),
        ("t5", "cafe\u0301", 0),  # normalized to one character
        ("t5", "it’s “quoted”", 0),
        ("t5", "ａ ｆｏｘ", 0),  # wide letters, normalized
        ("t5", "a fox \u200d\ufe0f", 0),  # a joiner and a selector, without a picture
        ("t5", "，。！", 0),  # punctuation loses nothing
        ("t5", "", 0),
        ("clip", "a fox in the snow", 0),
        ("clip", CHINESE, 0),  # as bytes
        ("clip", "", 0),
        ("bert", "CAFÉ", 0),
        ("bert", "a fox 🦊", 1 / 5),
        ("language model", CHINESE, 0),
    ],
)
def test_the_share_of_characters_that_an_encoder_does_not_know(length_of, kind, prompt, unread):
    assert length_of(kind, prompt).unread == pytest.approx(unread, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "prompt", "unknown"),
    [
        ("t5", CHINESE, 1),  # one token for the whole text
        ("t5", f"{CHINESE} a fox {CHINESE}", 2),
        ("clip", CHINESE, 0),
        ("clip", "a fox", 0),  # the end token is no unknown token, though it has its number
        ("bert", "🦊 a fox 🦊", 2),
        ("language model", CHINESE, 0),
    ],
)
def test_unknown_tokens_are_counted(length_of, kind, prompt, unknown):
    assert length_of(kind, prompt).unknown == unknown


def test_the_demo_model_leaves_out_what_it_does_not_know(count):
    for length in count(spec(CHINESE)):
        assert (length.tokens, length.unknown, length.unread) == (1, 0, 1.0)
    assert [length.unread for length in count(spec("A fox, in the SNOW!"))] == [0, 0]


@pytest.mark.parametrize(("share", "reported"), [(None, False), (0.0, False), (1 / 3, False), (0.34, True), (1, True)])
def test_more_than_a_third_is_reported(share, reported):
    assert is_unread(share) is reported


def test_a_tokenizer_in_python_tells_no_characters():
    counter = TokenCounter([(TextEncoder("Encoder", "tokenizer", ARGUMENT), PipelineTokenizer(ByT5Tokenizer()))], {})
    ((length,),) = counter.count(["a fox"], 5)
    assert (length.tokens, length.limit, length.cut) == (6, 5, "x")
    assert (length.unknown, length.unread) == (None, None)


def test_a_processor_of_images_and_texts_has_a_tokenizer(folders):
    class Processor:
        tokenizer = AutoTokenizer.from_pretrained(folders["t5"])

    assert PipelineTokenizer(Processor()).unknown == 2


def test_a_pipeline_without_one_of_its_tokenizers_is_counted_by_the_others(folders):
    class FluxPipeline:
        tokenizer, tokenizer_2 = AutoTokenizer.from_pretrained(folders["clip"]), None

    pipeline = FluxPipeline()
    parts = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
    pipeline.config = dict.fromkeys(parts, ("transformers", "CLIPTextModel"))
    assert [length.encoder for length in TokenCounter.of_pipeline(pipeline)(spec("a fox"))] == ["CLIPTextModel"]


@pytest.mark.parametrize(("json_file", "imported"), [(True, set()), (False, {"transformers", "torch"})])
def test_a_tokenizer_json_is_read_without_transformers(tmp_path, folders, json_file, imported):
    """Other tokenizers need transformers, which converts them: here a vocabulary and its merges."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for file in folders["language model"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if not json_file:
        model = json.loads((folder / "tokenizer.json").read_text())["model"]
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"])]))
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    parts = ("tokenizer", "text_encoder")
    index = {"_class_name": "StableDiffusionPipeline"} | dict.fromkeys(parts, ("transformers", "CLIPTextModel"))
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    code = (
        "import sys\nfrom pathlib import Path\nfrom t2i_core.engine.tokens import TokenCounter\n"
        "print(TokenCounter.of_folder(Path(sys.argv[1])).count(['a fox'], None)[0][0].tokens)\n"
        "print(*({'torch', 'transformers'} & sys.modules.keys()))"
    )
    answer = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout
    tokens, modules = answer.splitlines()
    assert int(tokens) == len(FileTokenizer(folders["language model"]).encode(["a fox"])[0].ids)
    assert set(modules.split()) == imported


def test_a_sentencepiece_file_is_read(tmp_path):
    like_t5_without_json(tmp_path / "tokenizer")
    parts = ("tokenizer", "text_encoder")
    index = {"_class_name": "PixArtAlphaPipeline"} | dict.fromkeys(parts, ("transformers", "T5EncoderModel"))
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    counter = TokenCounter.of_folder(tmp_path)
    (known,), (chinese,) = counter.count(["a café under the moon", CHINESE], 120)
    assert (known.limit, known.cut, known.unknown, known.unread) == (120, None, 0, 0.0)
    assert (chinese.tokens, chinese.unknown, chinese.unread) == (3, 1, 1.0)  # a space, the unknown token, the end


def test_the_summary_says_how_many_prompts_were_cut_and_where(run, output, prompts, caplog):
    dataset = prompts("a fox", LONG, "a cat", LONG + " again")
    assert run(dataset=dataset).is_completed()
    assert "2 images have a prompt longer than a text encoder takes (rows 1, 3)" in caplog.text
    rows = pq.read_table(output.folder / "images.parquet").to_pylist()
    assert [any(length["cut"] for length in row["prompt_lengths"]) for row in rows] == [False, True, False, True]
    expected = {"encoder": "CLIPTextModel", "tokens": 3, "limit": 24, "cut": None, "unknown": 0, "unread": 0.0}
    assert rows[0]["prompt_lengths"][0] == expected
    caplog.clear()  # an unchanged run says it again
    run(dataset=dataset)
    assert "(rows 1, 3)" in caplog.text
    assert output.run()["accounting"]["images_cut"] == 2


@pytest.mark.parametrize("make", ["stable_diffusion_3", "stable_diffusion_xl", "pixart_sigma", "cogview4", "lumina2"])
def test_what_a_pipeline_gives_its_encoders_is_what_is_not_cut(make, monkeypatch):
    pipeline = getattr(tiny_pipelines, make)()
    given = {}
    names = [name for name in pipeline.components if name.startswith("tokenizer")]
    call = PreTrainedTokenizerBase.__call__

    def watched(self, text, **options):
        result = call(self, text, **options)
        if options.get("truncation"):
            name = next(name for name in names if getattr(pipeline, name) is self)
            given.setdefault(name, self.decode(result.input_ids[0], skip_special_tokens=True).count("snow"))
        return result

    counter = TokenCounter.of_pipeline(pipeline)
    prompt = "snow " * 200
    limit = 60  # longer than the text that Lumina 2 puts before a prompt
    seen = [length.tokens - 1 - length.cut.count("snow") for length in counter.count([prompt], limit)[0]]
    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", watched)
    takes = "max_sequence_length" in signature(pipeline.encode_prompt).parameters
    pipeline.encode_prompt(
        *([prompt] * (3 if make == "stable_diffusion_3" else 1)), **({"max_sequence_length": limit} if takes else {})
    )
    assert seen == list(given.values())
    assert all(0 < words < 200 for words in seen)


def test_a_pipeline_of_the_users_own_class_is_counted_as_that_of_diffusers():
    class Mine(StableDiffusionXLPipeline):
        pass

    pipeline = tiny_pipelines.stable_diffusion_xl()
    expected = TokenCounter.of_pipeline(pipeline)(spec("a fox"))
    pipeline.__class__ = Mine
    assert TokenCounter.of_pipeline(pipeline)(spec("a fox")) == expected
    assert len(expected) == 2


def test_a_tokenizer_that_cannot_be_read_is_named_and_the_others_are_counted(tmp_path, folders):
    shutil.copytree(folders["t5"], tmp_path / "tokenizer_2")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{")
    index = {"_class_name": "FluxPipeline"}
    for number, encoder in (("", "CLIPTextModel"), ("_2", "T5EncoderModel")):
        index |= {f"tokenizer{number}": ["transformers", "X"], f"text_encoder{number}": ["transformers", encoder]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    counter = TokenCounter.of_folder(tmp_path)
    assert counter.unreadable == ["CLIPTextModel"]
    assert [length.encoder for length in counter(spec("a fox"))] == ["T5EncoderModel"]
