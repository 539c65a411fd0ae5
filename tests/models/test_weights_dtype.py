"""The dtype of a model without a preset: that of its files, the same in a folder, on the hub and in its cache."""

import json
from pathlib import Path

import pytest

from t2i_core.models.hub import card_licence
from t2i_core.models.identity import resolve_model
from t2i_core.models.tensor_names import safetensors_header
from t2i_core.models.weights import fetch_weights
from t2i_core.models.weights_dtype import weights_dtype
from tests.fake_hub import FakeHub, go_offline, write_tree
from tests.tiny_model import clutter, model_files

NAME = "owner/model"
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F64": 8, "U8": 1, "I64": 8}


def safetensors(**elements: int) -> bytes:
    """Return a file of zeros with so many elements of each dtype, a tensor each."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for dtype, count in elements.items():
        header[dtype] = {"dtype": dtype, "shape": [count, 1], "data_offsets": [end, end + count * SIZES[dtype]]}
        end += count * SIZES[dtype]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def files_of(*shards: bytes, pipeline_class: str = "CogView4Pipeline") -> dict[str, bytes]:
    """Return a pipeline of a class without a preset whose denoiser has these two shards, and a float32 encoder."""
    files = model_files(pipeline_class=pipeline_class)
    for number, shard in enumerate(shards, 1):
        files[f"transformer/diffusion_pytorch_model-0000{number}-of-00002.safetensors"] = shard
    return files | {"text_encoder/model.safetensors": safetensors(F32=1000)}


HALF = files_of(safetensors(F16=30), safetensors(F32=20))


@pytest.mark.parametrize(
    ("elements", "dtype"),
    [
        ([{"F16": 3}], "float16"),
        ([{"BF16": 3}], "bfloat16"),
        ([{"F32": 3}], "float32"),
        ([{"F64": 3}], "float32"),
        ([{"F8_E4M3": 30, "F32": 1}], "bfloat16"),
        ([{"U8": 300, "BF16": 5, "I64": 1}], "bfloat16"),
        ([{"F32": 5, "F16": 6}], "float16"),
        ([{"F16": 5}, {"F32": 4}, {"F32": 4}], "float32"),
        ([{"F16": 5, "F32": 5}], "float32"),
        ([{"U8": 300}], None),
        ([{}], None),
        ([], None),
    ],
)
def test_the_dtype_is_that_of_most_of_the_denoiser(elements, dtype, tmp_path: Path) -> None:
    files = {f"unet/{number}.safetensors": safetensors(**part) for number, part in enumerate(elements)}
    files["text_encoder/model.safetensors"] = safetensors(F32=1000)
    write_tree(tmp_path, files)
    assert weights_dtype(files, lambda path: safetensors_header(tmp_path / path)) == dtype


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\x05\0\0\0\0\0\0\0[1]  ", b"\xff" * 8, b"\x09\0\0\0\0\0\0\0{", b"\x01" * 40]
)
def test_a_file_that_is_no_safetensors_has_no_header(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    assert safetensors_header(tmp_path / "a.safetensors") == {}


def test_folder_hub_and_cache_tell_the_same_dtype_and_the_hub_sends_no_weights(
    hub: FakeHub, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_model(str(write_tree(tmp_path / "folder", HALF))).dtype == "float16"
    hub.repository(NAME).commit(HALF | clutter())
    model = resolve_model(NAME, cache_dir=cache)
    assert model.dtype == "float16"
    assert sorted(hub.ranges) == [
        (f"transformer/diffusion_pytorch_model-0000{number}-of-00002.safetensors", "bytes=0-100000")
        for number in (1, 2)
    ]
    with monkeypatch.context() as offline:
        go_offline(offline, "HF_HUB_OFFLINE")
        assert resolve_model(NAME, cache_dir=cache).dtype is None  # without network and weights nothing tells
    fetch_weights(model, cache_dir=cache, local_dir=None)
    assert resolve_model(NAME, cache_dir=cache).dtype == "float16"
    go_offline(monkeypatch, "HF_HUB_OFFLINE")
    assert resolve_model(NAME, cache_dir=cache).dtype == "float16"


def test_where_a_preset_of_the_class_decides_the_hub_is_not_asked_for_headers(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(files_of(safetensors(F16=3), safetensors(F16=3), pipeline_class="FluxPipeline"))
    assert resolve_model(NAME, cache_dir=cache).dtype is None
    assert hub.ranges == []


def test_a_torn_file_on_the_hub_tells_no_dtype(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(files_of(b"torn", b"torn"))
    assert resolve_model(NAME, cache_dir=cache).dtype is None


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n# Model", "mit"),
        ("---\nlicense: other\nlicense_name: flux-1-dev\n---\n", "flux-1-dev"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("\ufeff---\r\nlicense: mit\r\n---\r\ntext", "mit"),
        ("---\nlicense: mit\n---", "mit"),
        ("---\ntags: [a]\n---\n", None),
        ("# Model\nlicense: mit\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\n- license\n---\n", None),
        ("", None),
        (None, None),
        (b"---\nlicense: \xff\xfe\n---\n", None),
    ],
)  # fmt: skip
def test_the_licence_of_a_folder_is_what_its_card_states(card: str | bytes | None, licence, tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    assert card_licence(tmp_path) == licence


def test_a_folder_is_resolved_with_the_licence_of_its_card_and_what_its_index_says(tmp_path: Path) -> None:
    files = model_files()
    index = json.loads(files["model_index.json"]) | {"is_distilled": True, "_name_or_path": "a/b"}
    files["model_index.json"] = json.dumps(index).encode()
    write_tree(tmp_path, files | {"README.md": b"---\nlicense: mit\n---\n"})
    found = resolve_model(str(tmp_path))
    assert found.licence == "mit"
    assert found.configs["index"]["is_distilled"] is True
    assert found.configs["index"]["_name_or_path"] == "a/b"
    assert "scheduler" not in found.configs["index"]
