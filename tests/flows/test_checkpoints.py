"""The main job with files in place of a model's own weights."""

import shutil
import time

import pyarrow.parquet as pq
import pytest
from diffusers import StableDiffusionPipeline

from t2i_core.bundled import DEMO_MODEL
from tests import single_files
from tests.fake_hub import connected_hub, read_tree


@pytest.fixture
def file(stable_diffusion, tmp_path):
    """The weights of the tiny Stable Diffusion in a single file."""
    pipeline = StableDiffusionPipeline.from_pretrained(stable_diffusion)
    return single_files.save(single_files.stable_diffusion_tensors(pipeline), tmp_path / "tiny.safetensors")


def test_a_single_file_makes_the_pixels_of_its_folder_and_is_known_by_its_content(
    run, output, prompts, file, stable_diffusion, tmp_path
):
    settings = {"dataset": prompts("a fox", "a cat"), "height": 32, "width": 32}
    assert run(**settings, model=stable_diffusion, output=str(tmp_path / "of_folder")).is_completed()
    assert run(**settings, model=file, base=stable_diffusion).is_completed()

    def column(folder, name):
        return pq.read_table(folder / "images.parquet")[name].to_pylist()

    pixels = column(output.folder, "pixels_sha256")
    assert pixels == column(tmp_path / "of_folder", "pixels_sha256")
    assert set(column(output.folder, "model_name")) == {f"{file}, base {stable_diffusion}"}
    (checkpoint,) = output.run()["model"]["checkpoints"]
    assert checkpoint["name"] == file
    assert set(checkpoint["components"]) == {"unet", "vae", "text_encoder"}
    elsewhere = tmp_path / "elsewhere.safetensors"
    shutil.move(file, elsewhere)
    base = shutil.copytree(stable_diffusion, tmp_path / "base")
    assert run(**settings, model=str(elsewhere), base=str(base)).is_completed()
    assert output.counts()["images_reused"] == 2
    assert column(output.folder, "pixels_sha256") == pixels


def test_a_transformer_from_the_hub_is_kept_to_by_its_commit_and_replaces_the_models_own(
    run, output, prompts, monkeypatch, tmp_path
):
    settings = {"dataset": prompts("a fox"), "cache_dir": str(tmp_path / "cache")}
    own = {path: data for path, data in read_tree(DEMO_MODEL).items() if path.startswith("transformer/")}
    sleep = time.sleep
    with connected_hub(monkeypatch) as hub:
        # The hub's own tests do without sleep; Prefect's threads cannot.
        monkeypatch.setattr(time, "sleep", sleep)
        first = hub.repository("owner/tuned").commit(own)
        assert run(**settings, transformer="owner/tuned/transformer").is_completed()
        # The same content as the model's own: the same model.
        assert run(**settings).is_completed()
        assert output.counts()["images_reused"] == 1
        hub.repository("owner/tuned").commit({"README.md": b"nothing is left"})
        assert run(**settings, transformer="owner/tuned/transformer").is_completed()
        assert output.run()["model"]["checkpoints"][0]["commit"] == first
        assert output.counts()["images_reused"] == 1


def test_what_a_single_file_needs_of_a_hub_that_cannot_be_asked(run, prompts, file, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    state = run(dataset=prompts("a fox"), model=file)
    assert state.name == "Refused"
    assert f"{file} needs files of stable-diffusion-v1-5/stable-diffusion-v1-5: --base names another" in state.message
    assert len(state.message.splitlines()) == 1
