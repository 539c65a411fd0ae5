"""One Prefect server for the whole session, and helpers to run the flow in this process and in others."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from t2i_core.storage.formats import decode_image, read_header
from tests.prefect_server import serve

# Waiting threads that spin make a small model 10 times slower beside any other work (measured on 2 cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).parent.parent

# A shared machine is slow at times, which says nothing of the code.
hypothesis.settings.register_profile("no clock", deadline=None)
# `make soak`: so many cases of each test that asks for no number of its own.
hypothesis.settings.register_profile("soak", deadline=None, max_examples=int(os.environ.get("SOAK_CASES", "100")))
hypothesis.settings.load_profile("soak" if "SOAK_CASES" in os.environ else "no clock")

# Quick settings where a test is not about pictures: one step of the demo model, in the process of the run.
QUICK = {"model": "demo", "steps": 1, "batch_size": 2, "retries": 0, "workers": 0}


def pytest_collection_modifyitems(items):
    """Put files first that need a server: they take longest, and where processes share files, all end together."""
    slow = {item.path for item in items if "server" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in slow)


def header_of(path):
    """The record that an image file carries."""
    with Path(path).open("rb") as file:
        return read_header(file)


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """Let the garbage collector look at what a file's own tests make: code under test collects when memory is short."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The API URL of a server for the whole session."""
    with serve(tmp_path_factory.mktemp("prefect")) as url, pytest.MonkeyPatch.context() as patch:
        # Of runs in this process: their end would wait up to a second for the thread that sends heartbeats.
        patch.setattr("prefect.flow_engine.FlowRunEngine.heartbeat_seconds", None)
        yield url


class Output:
    """An output folder and what a run left in it."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def manifest(self, name="manifest.jsonl"):
        return [json.loads(line) for line in (self.folder / name).read_text("utf-8").splitlines()]

    def failures(self):
        return [json.loads(line) for line in (self.folder / "failures.jsonl").read_text("utf-8").splitlines()]

    def run(self):
        return json.loads((self.folder / "run.json").read_text("utf-8"))

    def counts(self):
        return {name: n for name, n in self.run()["accounting"].items() if n}

    def stored(self):
        """Images by key: {key: path}."""
        return {path.stem: path for path in (self.folder / ".t2i" / "images").rglob("*.png")}

    def pixels(self):
        """{key: SHA-256 of the pixels}, every stored image decoded."""
        return {key: decode_image(path.read_bytes()).pixels_sha256 for key, path in self.stored().items()}

    def manifest_is_true(self):
        """Every path in the manifest names an image whose header holds a prompt of that row; and there is one."""
        paths = [(path, row) for row in self.manifest() for path in row["images"]]
        assert paths, "a manifest without a single image says nothing"
        for path, row in paths:
            image = decode_image(Path(path).read_bytes())
            assert image is not None, path
            assert image.record["spec"]["prompt"] in json.dumps(row, ensure_ascii=False), (path, row)
        return True


@pytest.fixture
def output(tmp_path):
    return Output(tmp_path / "out")


@pytest.fixture
def run(server, output, monkeypatch):
    """Run the flow in this process: `run(dataset=..., steps=...)` -> the final state."""
    from flows.text2image import text2image

    def call(**values):
        return text2image(**({"output": str(output.folder)} | QUICK | values), return_state=True)

    return call


@pytest.fixture
def no_model(monkeypatch):
    """Loading a model fails the test."""

    def fail(settings):
        pytest.fail("the model was loaded")

    monkeypatch.setattr("t2i_core.engine.load.load_model", fail)


@pytest.fixture
def prompts(tmp_path):
    """Write a data set of conversations: `prompts("a fox", "a cat")` -> its path."""

    def write(*texts, name="prompts.jsonl"):
        path = tmp_path / name
        rows = [
            text if isinstance(text, dict) else {"conversations": [{"role": "user", "content": text}]} for text in texts
        ]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        return str(path)

    return write


def command(*arguments, driver="flows.text2image"):
    """The command line of a run with the quick settings."""
    given = {str(argument).partition("=")[0] for argument in arguments}
    quick = {f"--{name.replace('_', '-')}": value for name, value in QUICK.items()}
    flags = [f"{flag}={value}" for flag, value in quick.items() if flag not in given]
    return [sys.executable, "-m", driver, *flags, *map(str, arguments)]


def in_process(*arguments, driver="flows.text2image", check=None, timeout=200):
    """Run the command line in a process of its own; `check`: the exit code it must have."""
    done = subprocess.run(
        command(*arguments, driver=driver), cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def lora(tmp_path_factory):
    """A LoRA of the demo model's transformer with random weights."""
    import torch
    from diffusers import FluxPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    from t2i_core.bundled import DEMO_MODEL

    pipeline = FluxPipeline.from_pretrained(DEMO_MODEL, dtype=torch.float32)
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=["to_q", "to_v"])
    pipeline.transformer.add_adapter(config)
    for name, parameter in pipeline.transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("lora")
    FluxPipeline.save_lora_weights(
        folder, transformer_lora_layers=get_peft_model_state_dict(pipeline.transformer), weight_name="style.safetensors"
    )
    return folder / "style.safetensors"


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory):
    """A tiny pipeline of a class without a preset, with random weights."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import AutoTokenizer, CLIPTextModel

    from t2i_core.bundled import DEMO_MODEL

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=[8, 16],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=4,
    )
    folder = tmp_path_factory.mktemp("stable_diffusion")
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel.from_pretrained(DEMO_MODEL / "text_encoder"),
        tokenizer=AutoTokenizer.from_pretrained(DEMO_MODEL / "tokenizer"),
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return str(folder)
