"""Names and shapes of tensors, read from the headers of files."""

from pathlib import Path

import pytest

from t2i_core.errors import ModelError
from t2i_core.models.tensor_names import read_shapes
from tests.fake_hub import message_of
from tests.models.weight_files import gguf, safetensors, write

SHAPES = {"a.weight": (3, 5), "b.bias": (7,), "c": (2, 3, 1, 1)}


@pytest.mark.parametrize(("name", "data"), [("x.safetensors", safetensors(SHAPES)), ("x.GGUF", gguf(SHAPES))])
def test_names_and_shapes_of_a_file(tmp_path: Path, name: str, data: bytes) -> None:
    assert read_shapes("model", name, Path(write(tmp_path / name, data))) == SHAPES


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("x.safetensors", safetensors(SHAPES)[:-1], "it is torn: "),
        ("x.safetensors", safetensors(SHAPES)[:50], "it is torn, or no safetensors file"),
        ("x.safetensors", b"<html>not found</html>", "it is torn, or no safetensors file"),
        ("x.safetensors", b"", "its header is broken"),
        ("x.safetensors", (3).to_bytes(8, "little") + b"[1]", "its header is broken"),
        ("x.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        ("x.gguf", b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        ("x.gguf", gguf(SHAPES)[:40], "it is torn"),
        ("x.gguf", gguf({"a": (1000, 1000)})[:1000], "it is torn: "),
        ("x.gguf", safetensors(SHAPES), "it is no GGUF file"),
        ("x.gguf", b"GGUF" + bytes(20), "its GGUF version is 0"),
    ],
)
def test_a_torn_or_other_file_is_one_line(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_shapes("model", name, Path(write(tmp_path / name, data)))
    assert message_of(caught).startswith(f"model: {name} cannot be read ({why}")


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    for name, data in {"x.safetensors": safetensors({}), "x.gguf": gguf({})}.items():
        with pytest.raises(ModelError, match=f"^model: {name} holds no tensors"):
            read_shapes("model", name, Path(write(tmp_path / name, data)))
