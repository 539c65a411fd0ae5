"""What the hub may answer, and what the cache can do without it."""

import shutil
import threading
from pathlib import Path

import pytest

from t2i_core.errors import HubUnavailable, ModelError
from t2i_core.models import hub as hub_module
from t2i_core.models.identity import ResolvedModel, resolve_model
from t2i_core.models.weights import fetch_weights, locate
from tests.fake_hub import SECRET, FakeHub, go_offline, message_of
from tests.tiny_model import clutter, model_files

NAME = "owner/model"


def test_a_gated_model_says_where_to_accept_the_licence(hub: FakeHub, cache: str) -> None:
    repository = hub.repository(NAME)
    repository.commit(model_files())
    for repository.gated_files, repository.gated_listing in [(True, False), (False, True)]:
        with pytest.raises(ModelError) as caught:
            resolve_model(NAME, cache_dir=cache)
        message = message_of(caught)
        assert "https://huggingface.co/owner/model" in message
        assert "hf auth login" in message
        assert "HF_TOKEN" in message
        assert not isinstance(caught.value, HubUnavailable)


def test_a_model_gated_after_it_was_resolved(hub: FakeHub, cache: str, tmp_path: Path) -> None:
    hub.repository(NAME).commit(model_files())
    model = resolve_model(NAME, cache_dir=cache)
    hub.repository(NAME).gated_files = True
    for local_dir in (None, str(tmp_path / "models")):
        with pytest.raises(ModelError, match="gated; accept its licence"):
            fetch_weights(model, cache_dir=cache, local_dir=local_dir)


def test_a_missing_or_private_model(hub: FakeHub, cache: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_model("owner/nothing", cache_dir=cache)
    message = message_of(caught)
    assert "no such model on 127.0.0.1" in message
    assert "private" in message
    assert "check the name" in message


def test_a_missing_revision(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(model_files())
    with pytest.raises(ModelError, match=r"owner/model: has no revision 'v9'; check --revision"):
        resolve_model(NAME, revision="v9", cache_dir=cache)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_in_trouble_may_be_asked_again(hub: FakeHub, cache: str, status: int) -> None:
    hub.repository(NAME).commit(model_files())
    hub.fail_next, hub.fail_status = 1, status
    with pytest.raises(HubUnavailable) as caught:
        resolve_model(NAME, cache_dir=cache)
    assert f"answered {status}, a transient failure; try again later" in message_of(caught)
    assert caught.value.reached
    assert resolve_model(NAME, cache_dir=cache).commit


def test_a_download_outlives_a_few_errors(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(model_files())
    model = resolve_model(NAME, cache_dir=cache)
    hub.fail_next = 3
    assert fetch_weights(model, cache_dir=cache, local_dir=None) == locate(model, cache_dir=cache, local_dir=None)


def test_a_hub_that_does_not_answer_in_time(hub: FakeHub, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "TIMEOUT_SECONDS", 0.2)
    hub.silent = threading.Event()
    with pytest.raises(HubUnavailable) as caught:
        resolve_model(NAME, cache_dir=cache)
    assert "did not answer in time" in message_of(caught)
    assert not caught.value.reached


def test_a_refused_login(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(model_files())
    hub.fail_next, hub.fail_status = 1, 403
    with pytest.raises(ModelError, match=r"refused access \(403\).*hf auth login"):
        resolve_model(NAME, cache_dir=cache)


def test_a_page_in_place_of_an_answer(hub: FakeHub, cache: str) -> None:
    hub.html = True
    with pytest.raises(ModelError, match="does not answer like a hub; check HF_ENDPOINT"):
        resolve_model(NAME, cache_dir=cache)


def test_no_network_and_credentials_in_the_address(hub: FakeHub, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://user:{SECRET}@127.0.0.1:9")
    with pytest.raises(HubUnavailable) as caught:
        resolve_model(NAME, cache_dir=cache)
    assert "127.0.0.1:9 cannot be reached" in message_of(caught)
    assert not caught.value.reached


def test_a_cache_that_cannot_be_written(hub: FakeHub, tmp_path: Path) -> None:
    hub.repository(NAME).commit(model_files())
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot write the download: .*--cache-dir"):
        resolve_model(NAME, cache_dir=str(tmp_path / "file"))


def fill(hub: FakeHub, cache: str) -> ResolvedModel:
    hub.repository(NAME).commit(model_files() | clutter())
    model = resolve_model(NAME, cache_dir=cache)
    fetch_weights(model, cache_dir=cache, local_dir=None)
    hub.requests.clear()
    return model


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "no network"])
@pytest.mark.parametrize("trees", [True, False])
def test_offline_a_full_cache_is_used_instead(
    hub: FakeHub, cache: str, monkeypatch: pytest.MonkeyPatch, how: str, trees: bool
) -> None:
    online = fill(hub, cache)
    if not trees:  # as in caches written by earlier versions of huggingface_hub
        shutil.rmtree(Path(cache) / "models--owner--model" / "trees")
    go_offline(monkeypatch, how)
    for commit in (None, online.commit):
        model = resolve_model(NAME, cache_dir=cache, commit=commit)
        assert (model.identity, model.commit, model.files) == (online.identity, online.commit, online.files)
        assert fetch_weights(model, cache_dir=cache, local_dir=None).name == online.commit
    assert hub.requests == []


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "no network"])
def test_offline_an_empty_cache_is_an_error(
    hub: FakeHub, cache: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    go_offline(monkeypatch, how)
    with pytest.raises(ModelError) as caught:
        resolve_model(NAME, cache_dir=cache)
    message = message_of(caught)
    assert isinstance(caught.value, HubUnavailable) == (how == "no network")
    assert ("offline (HF_HUB_OFFLINE)" if how == "HF_HUB_OFFLINE" else "check the network") in message


def test_offline_a_half_filled_cache_knows_the_model_but_does_not_give_it(
    hub: FakeHub, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repository(NAME).commit(model_files())
    online = resolve_model(NAME, cache_dir=cache)
    go_offline(monkeypatch, "HF_HUB_OFFLINE")
    model = resolve_model(NAME, cache_dir=cache)
    assert model.identity == online.identity
    with pytest.raises(ModelError, match="offline") as caught:
        fetch_weights(model, cache_dir=cache, local_dir=None)
    message_of(caught)
    shutil.rmtree(Path(cache) / "models--owner--model" / "trees")
    with pytest.raises(ModelError, match="not complete in the cache"):
        resolve_model(NAME, cache_dir=cache)


def test_a_hub_in_trouble_does_not_stop_a_pinned_commit_that_is_cached(hub: FakeHub, cache: str) -> None:
    online = fill(hub, cache)
    hub.fail_next = 2
    assert resolve_model(NAME, cache_dir=cache, commit=online.commit).identity == online.identity
    with pytest.raises(HubUnavailable):
        resolve_model(NAME, cache_dir=cache)
