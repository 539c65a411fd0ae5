"""What trainers do with the lists of images that they read: their rules, as their sources have them.

Each function takes the paths of a list and of its folder of images, reads it as the trainer does, and returns for each
sample the picture and the texts; it fails where the trainer would fail, or leave a sample out.
"""

import json
import os
import re
from pathlib import Path

from PIL import Image


def opened(path):
    """The picture at a path, decoded."""
    with Image.open(path) as image:
        return image.convert("RGB")


def lines_of(path):
    """The lines of a file, as a text file that is read line by line has them."""
    with Path(path).open(encoding="utf-8") as file:
        return list(file)


def llava(data_path, image_folder):
    """LLaVA, llava/train/train.py: LazySupervisedDataset, preprocess_multimodal and preprocess_v1."""
    found = []
    for source in json.loads(Path(data_path).read_text("utf-8")):
        assert "image" in source
        image = opened(os.path.join(image_folder, source["image"]))
        turns = source["conversations"]
        # A first turn that is not the human's would be left out, and every other one has to alternate.
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        tokens = sum(turn["value"].count("<image>") for turn in turns)
        assert tokens == 1, "one picture is put in for each token"
        assert "<image>" in turns[0]["value"]
        question = turns[0]["value"].replace("<image>", "").strip()
        found.append((source["id"], image, question, turns[1]["value"]))
    return found


def qwen_vl(annotation_path, data_path):
    """Qwen, qwen-vl-finetune/qwenvl/data/data_processor.py: _build_messages, which refuses pictures too many or few."""
    found = []
    for item in json.loads(Path(annotation_path).read_text("utf-8")):
        images = item.get("image") or []
        pool = [str((Path(data_path) / name).resolve()) for name in ([images] if isinstance(images, str) else images)]
        videos = item.get("video") or []
        assert not videos, "a column of this name would be taken for videos"
        image = opened(pool[0])
        for turn in item["conversations"]:
            if turn["from"] != "human":
                continue
            for part in re.split(r"(<image>|<video>)", turn["value"]):
                assert part != "<video>"
                if part == "<image>":
                    pool.pop(0)
        assert not pool, "unused pictures"
        found.append((image, item["conversations"]))
    return found


def llama_factory(dataset_dir, name, media_dir):
    """LLaMA-Factory, src/llamafactory/data: parser.py, loader.py, converter.py and mm_plugin.py."""
    from datasets import load_dataset

    info = json.loads((Path(dataset_dir) / "dataset_info.json").read_text())[name]
    assert info["formatting"] == "sharegpt"
    columns, tags = info["columns"], info["tags"]
    files = [os.path.join(dataset_dir, info["file_name"])]
    data = load_dataset("json", data_files=files, split="train", cache_dir=str(Path(dataset_dir).parent / "lf-cache"))
    found = []
    for example in data:
        messages, images = example[columns["messages"]], example[columns["images"]]
        assert len(messages) % 2 == 0
        for turn, message in enumerate(messages):
            accepted = (tags["user_tag"], "observation") if turn % 2 == 0 else (tags["assistant_tag"], "function_call")
            assert message[tags["role_tag"]] in accepted
        texts = [message[tags["content_tag"]] for message in messages]
        for mark, count in (("<image>", len(images)), ("<video>", 0), ("<audio>", 0)):
            assert sum(text.count(mark) for text in texts) == count
        paths = [os.path.join(media_dir, name) for name in images]
        assert all(map(os.path.isfile, paths))
        found.append((opened(paths[0]), texts))
    return found


def diffsynth(metadata_path, base_path):
    """DiffSynth-Studio, diffsynth/core/data/unified_dataset.py, with `--data_file_keys image,video`."""
    found = []
    for line in lines_of(metadata_path):
        data = json.loads(line.strip())
        assert not {"video"} & set(data), "a column of this name would be loaded as a video"
        found.append((opened(os.path.join(base_path, data["image"])), data["prompt"]))
    return found


def musubi(image_jsonl_file):
    """musubi-tuner, src/musubi_tuner/dataset/datasources.py: ImageJsonlDatasource."""
    found = []
    for line in lines_of(image_jsonl_file):
        data = json.loads(line)
        assert not any(name.startswith("control_path") for name in data), "would be loaded as control images"
        found.append((opened(data.get("image_path", data.get("image_path_0"))), data["caption"]))
    return found


def dataflow_evaluator(file, input_image_key="image", input_text_key="caption"):
    """DataFlow-MM, dataflow/operators/core_vision/eval/image_clip_evaluator.py over storage of type jsonl."""
    import pandas as pd

    frame = pd.read_json(file, lines=True)
    return [(opened(row[input_image_key]), str(row[input_text_key])) for _, row in frame.iterrows()]


def dataflow_editing(file, input_image_key="images", input_conversation_key="conversations"):
    """DataFlow-MM, dataflow/operators/core_vision/generate/prompted_image_edit_generator.py."""
    import pandas as pd

    base = Path(file).resolve().parent
    found = []
    for _, row in pd.read_json(file, lines=True).iterrows():
        paths = row[input_image_key]
        paths = [paths] if isinstance(paths, str) else paths
        paths = [path if os.path.isabs(path) else os.path.normpath(os.path.join(base, path)) for path in paths]
        found.append((opened(paths[0]), row[input_conversation_key][-1]["content"]))
    return found
