"""The main job with a model from a hub: a server on loopback that holds the demo model's files."""

import time

import pytest

from t2i_core.bundled import DEMO_MODEL
from tests.fake_hub import connected_hub, read_tree

NAME = "owner/tiny"


@pytest.fixture
def hub(monkeypatch):
    sleep = time.sleep
    with connected_hub(monkeypatch) as fake:
        # The hub's own tests do without sleep; Prefect's threads cannot.
        monkeypatch.setattr(time, "sleep", sleep)
        yield fake


@pytest.fixture
def settings(tmp_path, prompts):
    return {"dataset": prompts("a fox", "a cat"), "model": NAME, "cache_dir": str(tmp_path / "cache")}


def test_a_hub_model_is_fetched_once_and_pinned(run, output, hub, settings, caplog):
    repository = hub.repository(NAME)
    first = repository.commit(read_tree(DEMO_MODEL))
    assert run(**settings).is_completed()
    assert "download  owner/tiny" in caplog.text
    assert output.run()["model"]["preset"] == "demo"  # found by identity: a hub copy of the bundled model
    assert output.run()["model"]["commit"] == first
    asked = len(hub.downloaded())
    repository.commit(read_tree(DEMO_MODEL) | {"transformer/config.json": b'{"_class_name": "FluxTransformer2DModel"}'})
    for _ in range(2):  # the branch has moved; this output stays with the commit of its first run
        assert run(**settings).is_completed()
        assert output.run()["model"]["commit"] == first
        assert output.counts()["images_reused"] == 2
    assert len(hub.downloaded()) == asked


def test_a_hub_copy_of_the_bundled_model_makes_nothing_again(run, output, hub, settings):
    hub.repository(NAME).commit(read_tree(DEMO_MODEL) | {"README.md": b"a copy"})
    assert run(**settings | {"model": "demo"}).is_completed()
    assert run(**settings).is_completed()
    assert output.counts()["images_reused"] == 2
    assert not any(path.endswith(".safetensors") for path in hub.downloaded())


@pytest.mark.parametrize(
    ("refusal", "message"), [("gated_listing", "hf auth login"), ("gated_files", "hf auth login"), ("private", NAME)]
)
def test_what_a_hub_refuses_is_one_line(run, hub, settings, refusal, message):
    repository = hub.repository(NAME)
    repository.commit(read_tree(DEMO_MODEL))
    setattr(repository, refusal, True)
    state = run(**settings)
    assert state.name == "Refused"
    assert message in state.message
    assert len(state.message.splitlines()) == 1


def test_a_dry_run_checks_prompts_with_tokenizers_alone(run, hub, settings, prompts, caplog):
    repository = hub.repository(NAME)
    repository.commit(read_tree(DEMO_MODEL))
    assert run(**settings | {"dataset": prompts("a fox", "一只狐狸")}, dry_run=True).is_completed()
    assert "unread    1 of 2 prompts is more than a third unknown to CLIPTextModel and T5EncoderModel" in caplog.text
    # The two tokenizers have the same content, which the cache keeps once.
    assert {"tokenizer/tokenizer.json", "tokenizer_2/tokenizer.json"} & set(hub.downloaded())
    assert not any(path.endswith(".safetensors") for path in hub.downloaded())
