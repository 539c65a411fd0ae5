"""Which model a run uses: what is asked again, what is pinned, and what the output is told to keep to."""

import os
import shutil
from dataclasses import replace
from types import MappingProxyType

import pytest

from flows.resolve import default_model_fails, fetch, pixel_packages, resolve
from t2i_core.bundled import DEMO_MODEL
from t2i_core.config import Config
from t2i_core.errors import ConfigError, ModelError
from t2i_core.models.adapters import Adapter
from t2i_core.models.identity import ModelFile, ResolvedModel, bundled_identity
from tasks.caching import cache_key
from tests.fake_hub import write_tree
from tests.tiny_model import model_files

NAME = "owner/name"
FIRST, SECOND = "a" * 40, "b" * 40
NONE = MappingProxyType({})  # no commits yet; to write into them would raise


class FakeCache:
    """The hub as the tasks see it: a branch is at `head`. `calls` has (how, task, key, arguments) of each."""

    def __init__(self):
        self.head, self.calls, self.stored = FIRST, [], {}
        self.error = None

    def call(self, task, key, *arguments, is_valid=lambda stored: True):
        self.calls.append(("stored", task.name, key, arguments))
        if (task.name, key) not in self.stored or not is_valid(self.stored[task.name, key]):
            self.stored[task.name, key] = self._run(task.name, arguments)
        return self.stored[task.name, key]

    def call_afresh(self, task, key, *arguments):
        self.calls.append(("afresh", task.name, key, arguments))
        return self._run(task.name, arguments)

    def how(self, name="resolve model"):
        return [how for how, task, _, _ in self.calls if task == name]

    def keys(self, name="resolve model"):
        return [key for _, task, key, _ in self.calls if task == name]

    def pinned(self, name="resolve model"):
        return [arguments[3 if task == "resolve model" else -1] for _, task, _, arguments in self.calls if task == name]

    def _run(self, task, arguments):
        if self.error:
            raise self.error
        return getattr(self, f"_{task.replace(' ', '_')}")(*arguments)

    def _resolve_model(self, name, revision, cache_dir, commit, wanted):
        is_folder = os.path.isdir(name) or name == "demo"
        commit = None if is_folder else commit or (revision if revision and len(revision) == 40 else self.head)
        model = ResolvedModel(
            name=name,
            source="folder" if is_folder else "hub",
            location=name,
            commit=commit,
            identity=commit or "d" * 40,
            pipeline_class="FluxPipeline",
            files=(ModelFile("vae/a.safetensors", "2" * 64, 5),),
            configs={
                "transformer": {"guidance_embeds": False},  # as FLUX.1-schnell's
                "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
            },
        )
        return model.to_json()

    def _resolve_adapter(self, entry, cache_dir, commit):
        name, _, weight = entry.partition(":")
        commit = None if os.path.isfile(name) else commit or self.head
        return Adapter(name, "e" * 64, float(weight or 1), name, "a.safetensors", commit).to_json()

    def _fetch_weights(self, model, adapters, cache_dir, local_dir):
        checkpoints = [f"/checkpoints/{checkpoint['path']}" for checkpoint in model["checkpoints"]]
        loras = [f"/loras/{adapter['file']}" for adapter in adapters]
        return {"model": "/weights", "checkpoints": checkpoints, "adapters": loras}


@pytest.fixture
def cache():
    return FakeCache()


def config(**values):
    return Config.from_values({"dataset": "prompts.jsonl", "model": NAME} | values)


def test_the_first_run_asks_and_returns_the_commit_to_keep_to(cache):
    resolved = resolve(config(), cache, NONE)
    assert (cache.how(), cache.pinned()) == (["afresh"], [None])
    assert resolved.model.commit == FIRST
    assert resolved.commits == {NAME: FIRST}


def test_an_output_keeps_to_the_commit_it_began_with_wherever_the_branch_is(cache):
    commits = MappingProxyType({NAME: FIRST, "another/model": SECOND})
    cache.head = SECOND
    for _ in range(2):
        resolved = resolve(config(), cache, commits)
        assert resolved.model.commit == FIRST
        assert resolved.commits == dict(commits)
    assert (cache.how(), cache.pinned()) == (["stored"] * 2, [FIRST] * 2)
    assert len(set(cache.keys())) == 1


def test_a_branch_is_asked_each_time_and_the_output_does_not_keep_to_it(cache):
    commits = MappingProxyType({NAME: "c" * 40})
    for head in (FIRST, SECOND):
        cache.head = head
        resolved = resolve(config(revision="main"), cache, commits)
        assert resolved.model.commit == head
        assert resolved.commits == {NAME: "c" * 40}
    assert (cache.how(), cache.pinned()) == (["afresh"] * 2, [None] * 2)


def test_a_commit_named_by_the_user_is_asked_once(cache):
    for _ in range(2):
        resolved = resolve(config(revision=SECOND), cache, MappingProxyType({NAME: FIRST}))
        assert resolved.model.commit == SECOND
    assert (cache.how(), cache.pinned()) == (["stored"] * 2, [SECOND] * 2)
    assert resolved.commits == {NAME: FIRST}


def test_another_commit_is_stored_under_another_key(cache):
    for commit in (FIRST, SECOND):
        resolve(config(), cache, {NAME: commit})
        resolve(config(revision=commit), cache, NONE)
    assert len(set(cache.keys())) == 4


def test_a_preset_is_known_by_its_repository(cache):
    resolved = resolve(config(model="flux-schnell"), cache, NONE)
    assert resolved.preset.name == "flux-schnell"
    assert resolved.commits == {"black-forest-labs/FLUX.1-schnell": FIRST}


@pytest.fixture
def folder(tmp_path):
    for path, content in model_files().items():
        file = tmp_path / "model" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "model"


def test_a_folder_is_resolved_again_only_when_a_file_changed(cache, folder):
    for _ in range(2):
        assert resolve(config(model=str(folder)), cache, NONE).commits == {}
    os.utime(folder / "vae/diffusion_pytorch_model.safetensors", (5, 5))
    resolve(config(model=str(folder)), cache, NONE)
    first, second, third = cache.keys()
    assert first == second != third
    assert cache.how() == ["stored"] * 3


def test_the_bundled_model_is_a_folder_too(cache):
    assert resolve(config(model="demo"), cache, NONE).preset.name == "demo"
    assert cache.how() == ["stored"]


def test_a_lora_of_the_hub_is_pinned_like_the_model(cache):
    lora = ["owner/style:0.8"]
    first = resolve(config(lora=lora), cache, NONE)
    assert first.commits == {NAME: FIRST, "owner/style": FIRST}
    cache.head = SECOND
    second = resolve(config(lora=lora), cache, MappingProxyType(first.commits))
    assert second.adapters == first.adapters
    assert second.commits == first.commits
    assert cache.how("resolve adapter") == ["afresh", "stored"]
    assert cache.pinned("resolve adapter") == [None, FIRST]
    assert first.settings.adapters == (("e" * 64, 0.8),)


def test_a_lora_file_is_resolved_again_only_when_it_changed(cache, tmp_path):
    file = tmp_path / "style.safetensors"
    file.write_bytes(b"x")
    for _ in range(2):
        assert resolve(config(lora=[str(file)]), cache, NONE).commits == {NAME: FIRST}
    os.utime(file, (5, 5))
    resolve(config(lora=[str(file)]), cache, NONE)
    first, second, third = cache.keys("resolve adapter")
    assert first == second != third
    assert cache.how("resolve adapter") == ["stored"] * 3


def test_the_settings_are_those_of_the_configuration_else_of_the_preset(cache):
    plain = resolve(config(model="flux-schnell"), cache, NONE).settings
    assert (plain.dtype, plain.quantization, plain.prepare, plain.adapters) == ("bfloat16", None, None, ())
    assert plain.sampling.steps == 4
    own = config(
        model="flux-schnell", dtype="float16", quantization="int8", prepare="flows.outcomes:exit_code", steps=9
    )
    settings = resolve(own, cache, NONE).settings
    assert (settings.dtype, settings.quantization, settings.sampling.steps) == ("float16", "int8", 9)
    assert len(settings.prepare) == 64


def test_a_scheduler_that_diffusers_does_not_have_is_refused(cache):
    assert resolve(config(scheduler="FlowMatchEulerDiscreteScheduler"), cache, NONE).settings.sampling.scheduler
    with pytest.raises(ConfigError, match="has no NoScheduler"):
        resolve(config(scheduler="NoScheduler"), cache, NONE)


def test_a_scheduler_is_checked_against_the_models_own_and_its_options_have_one_form(cache):
    with pytest.raises(ConfigError, match="EulerDiscreteScheduler has no form for flow matching"):
        resolve(config(scheduler="EulerDiscreteScheduler"), cache, NONE)
    found = resolve(config(scheduler_options={"use_karras_sigmas": True, "shift": 5}), cache, NONE)
    assert found.settings.sampling.scheduler_options == '{"shift": 5.0, "use_karras_sigmas": true}'
    assert resolve(config(scheduler_options={"shift": 3.0}), cache, NONE).settings.sampling.scheduler_options is None


def test_what_decides_the_plan_is_data_set_sampling_and_model_and_nothing_of_the_run(cache):
    def settings(**values):
        return resolve(config(**values), cache, NONE).plan_settings()

    plain = settings()
    for other in ({"batch_size": 9}, {"device": "cpu"}, {"output": "elsewhere"}, {"retries": 7}, {"offload": "model"}):
        assert settings(**other) == plain
    for other in (
        {"limit": 5},
        {"prompt_key": "p"},
        {"steps": 7},
        {"seed": 1},
        {"images_per_prompt": 2},
        {"dtype": "float32"},
    ):
        assert settings(**other) != plain


def test_a_model_that_is_not_found_is_its_own_error(cache):
    cache.error = ModelError("owner/name: not found")
    with pytest.raises(ModelError, match="owner/name: not found"):
        resolve(config(), cache, NONE)


def test_where_nobody_named_a_model_the_error_says_what_works(cache):
    cache.error = ModelError("the hub says no")
    with pytest.raises(ConfigError) as caught:
        resolve(Config.from_values({"dataset": "prompts.jsonl"}), cache, NONE)
    first, _, demo, other = caught.value.problems
    assert "the hub says no" in first
    assert "--dataset prompts.jsonl --model demo" in demo
    assert "--dataset prompts.jsonl --model flux-dev, after `hf auth login`" in other


def test_the_hint_names_the_command_that_was_called(monkeypatch):
    for called, command in (
        ("/bin/text2image", "text2image"),
        ("/x/flows/text2image.py", "python -m flows.text2image"),
    ):
        monkeypatch.setattr("sys.argv", [called])
        assert f"  {command} --dataset" in str(default_model_fails(config(), "why", "--other"))


@pytest.fixture
def resolved(cache, folder, tmp_path):
    """A run's model whose files are all on this machine, with a LoRA."""
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(b"x")
    found = resolve(
        config(
            model=str(folder),
            lora=[f"{lora}:0.5"],
            scheduler="FlowMatchEulerDiscreteScheduler",
            scheduler_options={"shift": 5},
        ),
        cache,
        NONE,
    )
    (file,) = [ModelFile("vae/config.json", "0" * 64, (folder / "vae/config.json").stat().st_size)]
    return replace(found, model=replace(found.model, location=str(folder), files=(file,)))


def test_the_weights_are_fetched_and_the_engine_told_how_to_load_them(cache, resolved):
    loaded = fetch(replace(resolved, config=config(offload="group", compile=True, device="cpu")), cache)
    assert (loaded.path, loaded.adapters) == ("/weights", (("/loras/a.safetensors", 0.5),))
    assert (loaded.dtype, loaded.scheduler) == (resolved.settings.dtype, "FlowMatchEulerDiscreteScheduler")
    assert loaded.scheduler_options == '{"shift": 5.0}'
    assert (loaded.device, loaded.offload, loaded.compile, loaded.text_encoder) == ("cpu", "group", True, "auto")
    assert (loaded.quantization, loaded.prepare) == (None, None)
    assert (loaded.compile_mode, loaded.attention, loaded.tf32, loaded.step_cache) == ("default", None, False, None)


def test_what_makes_the_denoiser_faster_is_in_the_settings_and_reaches_the_engine(cache, resolved):
    values = {"attention": "flash3", "tf32": True, "step_cache": "taylorseer"}
    options = config(model=resolved.model.location, **values)
    settings = resolve(options, cache, NONE).settings
    assert (settings.attention, settings.tf32, settings.step_cache) == ("flash3", True, "taylorseer")
    loaded = fetch(replace(resolved, config=options, settings=settings), cache)
    assert (loaded.attention, loaded.tf32, loaded.step_cache) == ("flash3", True, "taylorseer")
    options = config(compile=True, compile_mode="max-autotune")
    assert fetch(replace(resolved, config=options), cache).compile_mode == "max-autotune"
    plain = resolve(config(model=resolved.model.location, attention="native", step_cache="none"), cache, NONE).settings
    assert plain == resolve(config(model=resolved.model.location), cache, NONE).settings


@pytest.mark.parametrize("lost", ["a file of the model", "a LoRA", None])
def test_stored_paths_count_while_the_files_are_there(cache, resolved, folder, tmp_path, monkeypatch, lost):
    lora = tmp_path / "a.safetensors"
    lora.write_bytes(b"x")
    monkeypatch.setattr(
        FakeCache,
        "_fetch_weights",
        lambda self, *arguments: fetched.append(1) or {"model": "/w", "checkpoints": [], "adapters": [str(lora)]},
    )
    fetched = []
    fetch(resolved, cache)
    if lost == "a LoRA":
        lora.unlink()
    elif lost:
        (folder / "vae/config.json").unlink()
    fetch(resolved, cache)
    assert len(fetched) == (1 if lost is None else 2)


def test_another_variant_is_another_result_and_no_variant_is_the_one_of_earlier_versions(cache):
    for values in ({}, {"variant": "fp16"}, {"variant": "bf16"}):
        resolve(config(**values), cache, MappingProxyType({NAME: FIRST}))
    assert len(set(cache.keys())) == 3
    assert cache.keys()[0] == cache_key("model", NAME, None, FIRST)
    assert [arguments[-1].variant for _, _, _, arguments in cache.calls] == [None, "fp16", "bf16"]


def test_weights_are_local_where_every_file_is_there_in_its_size(resolved, folder):
    assert resolved.weights_are_local()
    (folder / "vae/config.json").write_bytes(b"other size")
    assert not resolved.weights_are_local()


def test_a_copy_of_the_bundled_model_is_the_demo(tmp_path):
    from tasks.models import resolve_model_task

    shutil.copytree(DEMO_MODEL, tmp_path / "copy")

    class Direct(FakeCache):
        def _resolve_model(self, *arguments):
            return resolve_model_task.fn("key", *arguments)

    resolved = resolve(config(model=str(tmp_path / "copy")), Direct(), NONE)
    assert resolved.model.identity == bundled_identity()
    assert resolved.preset.name == "demo"


def test_the_licence_of_a_folder_is_read_afresh_while_its_files_are_not(cache, tmp_path):
    folder = write_tree(tmp_path / "model", model_files())
    card = folder / "README.md"
    found = []
    for text in (None, "---\nlicense: mit\n---\n", "---\nlicense: apache-2.0\n---\n"):
        if text:
            card.write_text(text)
        found.append(resolve(config(model=str(folder)), cache, NONE).model.licence)
    assert found == [None, "mit", "apache-2.0"]
    assert len(set(cache.keys())) == 1


def test_a_model_without_a_preset_of_its_class_has_the_dtype_of_its_files_unless_the_user_sets_one(cache, monkeypatch):
    monkeypatch.setattr(
        cache,
        "_resolve_model",
        lambda *arguments: ResolvedModel(
            name=NAME, source="hub", location=NAME, commit=FIRST, identity="d" * 64,
            pipeline_class="StableDiffusionPipeline", files=(), configs={"unet": {"sample_size": 64}}, dtype="float16",
        ).to_json(),
    )  # fmt: skip
    assert resolve(config(), cache, NONE).settings.dtype == "float16"
    assert resolve(config(dtype="float32"), cache, NONE).settings.dtype == "float32"


@pytest.mark.parametrize(
    ("options", "packages"),
    [
        ({}, ()),
        ({"attention": "cudnn"}, ()),
        ({"attention": "sage"}, ("sageattention",)),
        ({"attention": "flash3", "lora": ["a.safetensors"]}, ("peft", "flash-attn-3")),
        ({"quantization": "nf4", "attention": "flash2"}, ("bitsandbytes", "flash-attn")),
        ({"quantization": "int8"}, ("torchao",)),
    ],
)
def test_workers_must_have_the_versions_of_all_that_decides_the_pixels(options, packages):
    config = Config.from_values({"dataset": "x.txt", "model": "demo", **options})
    assert pixel_packages(config) == ("torch", "diffusers", "transformers", "tokenizers", *packages)
