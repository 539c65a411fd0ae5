"""The table of presets: aligned, and with the size of a download where the hub cache knows it."""

from pathlib import Path

from t2i_core.bundled import DEMO_MODEL
from t2i_core.models.identity import resolve_model
from t2i_core.models.listing import HEADER, preset_table
from t2i_core.models.presets import PRESETS
from t2i_core.models.weights import fetch_weights
from tests.fake_hub import FakeHub
from tests.tiny_model import clutter, model_files

SCHNELL = "black-forest-labs/FLUX.1-schnell"


def cells(table: str) -> dict[str, list[str]]:
    """The cells of each line by the preset's name, cut where the header's columns begin."""
    header, *lines = table.splitlines()
    starts = [header.index(name) for name in HEADER]
    pairs = list(zip(starts, [*starts[1:], None], strict=True))
    return {line.split()[0]: [line[start:end].strip() for start, end in pairs] for line in lines}


def test_each_preset_has_its_line(cache: str) -> None:
    table = cells(preset_table(cache))
    assert list(table) == list(PRESETS)
    assert table["flux-dev"][:5] == ["flux-dev", "black-forest-labs/FLUX.1-dev", "-", "20", "512x512"]
    assert "may not be used to train a competing model" in table["flux-dev"][5]
    assert table["sana"][5] == "see its page on the hub"


def test_the_bundled_model_has_the_size_of_its_files(cache: str) -> None:
    size = sum(file.size for file in resolve_model("demo").files)
    assert 0 < size <= sum(path.stat().st_size for path in DEMO_MODEL.rglob("*") if path.is_file())
    assert cells(preset_table(cache))["demo"][2] == f"{size / 1e6:.0f} MB"


def test_the_size_of_a_download_is_that_of_what_the_pipeline_loads_and_no_hub_is_asked(
    hub: FakeHub, cache: str
) -> None:
    files = model_files()
    files["vae/diffusion_pytorch_model.safetensors"] = b"x" * 3_400_000
    hub.repository(SCHNELL).commit(files | clutter())
    model = resolve_model(SCHNELL, cache_dir=cache)
    asked = len(hub.requests)
    assert cells(preset_table(cache))["flux-schnell"][2] == "3 MB"  # known before the weights are there
    fetch_weights(model, cache_dir=cache, local_dir=None)
    asked, before = len(hub.requests), asked
    assert asked > before
    table = cells(preset_table(cache))
    assert (table["flux-schnell"][2], table["flux-dev"][2]) == ("3 MB", "-")
    assert len(hub.requests) == asked


def test_a_cache_without_a_list_of_files_tells_the_size_once_all_files_are_there(hub: FakeHub, cache: str) -> None:
    hub.repository(SCHNELL).commit(model_files())
    model = resolve_model(SCHNELL, cache_dir=cache)
    remove_trees(cache)
    assert cells(preset_table(cache))["flux-schnell"][2] == "-"
    fetch_weights(model, cache_dir=cache, local_dir=None)
    remove_trees(cache)
    assert cells(preset_table(cache))["flux-schnell"][2] == "0 MB"


def remove_trees(cache: str) -> None:
    for listing in Path(cache).rglob("trees/*.json"):
        listing.unlink()
