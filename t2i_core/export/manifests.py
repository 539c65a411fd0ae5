"""Manifests for trainers that read a list of images: each in the words of its trainer."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from t2i_core.export.job import Job
from t2i_core.export.kinds import fitted
from t2i_core.export.questions import DESCRIBE, PICTURE
from t2i_core.export.samples import Sample
from t2i_core.export.text_files import JsonFile
from t2i_core.json_values import json_text
from t2i_core.storage.files import write_text


class Manifest(ABC):
    """Writes a file for each split, `train.jsonl` or `train.json`, and the images where they are not in place."""

    # Whether the file is one JSON list; else it has a line for each sample.
    as_list: ClassVar[bool] = False
    # Whether paths are absolute: the trainer has no option for the folder that they count from.
    absolute: ClassVar[bool] = False

    def __init__(self, job: Job) -> None:
        assert job.placed is not None
        self.job, self._placed = job, job.placed
        self._kinds = job.survey.columns.in_json_lines()
        self._files: dict[int, JsonFile] = {}
        self.questions = job.questions or DESCRIBE

    @abstractmethod
    def entry(self, sample: Sample, path: str) -> dict[str, Any]:
        """Return what the trainer reads of a sample, beside our columns and those of the input."""

    def write(self, sample: Sample) -> None:
        """Write a sample."""
        if sample.split not in self._files:
            file = JsonFile(self.job.folder / self.file_name(sample.split), self.as_list)
            self._files[sample.split] = file
            self.job.opened.callback(file.abandon)
        path = self._placed.place(sample, "images")
        row = {name: fitted(kind, sample.values[name]) for name, kind in self._kinds.items()}
        entry = self.entry(sample, str(self._placed.root() / path) if self.absolute else path)
        self._files[sample.split].write({**entry, **row}, sample.position in self.job.survey.leading)

    def close(self) -> None:
        """Finish the files."""
        self._placed.close()
        for file in self._files.values():
            file.close()

    def file_name(self, split: int) -> str:
        """Return the name of a split's file."""
        return f"{self.job.survey.splits.names[split]}.json" + "l" * (not self.as_list)

    def question(self, sample: Sample) -> str:
        """Return the question of a sample, after the picture."""
        return f"{PICTURE}\n{self.questions.of(sample.id, sample.values)}"


class DiffSynth(Manifest):
    """For DiffSynth-Studio: `image` and `prompt`; paths count from `--dataset_base_path`."""

    def entry(self, sample: Sample, path: str) -> dict[str, Any]:
        """Return the path; the text is a column of ours."""
        return {"image": path}


class Musubi(Manifest):
    """For musubi-tuner: `image_path` and `caption`."""

    absolute = True

    def entry(self, sample: Sample, path: str) -> dict[str, Any]:
        """Return the path; the text is a column of ours."""
        return {"image_path": path}


class Llava(Manifest):
    """For LLaVA: the picture and a question in, the text out; paths count from `--image_folder`."""

    as_list = True

    def entry(self, sample: Sample, path: str) -> dict[str, Any]:
        """Return id, picture and both turns."""
        turns = [{"from": "human", "value": self.question(sample)}, {"from": "gpt", "value": sample.text}]
        return {"id": sample.id, "image": path, "conversations": turns}


class QwenVl(Llava):
    """For Qwen's own fine-tuning: as LLaVA's; paths count from `data_path`."""


class LlamaFactory(Manifest):
    """For LLaMA-Factory and ms-swift: `messages` of a user and an assistant, and `images`.

    Paths count from `--media_dir`; the folder is the `--dataset_dir`.
    """

    def entry(self, sample: Sample, path: str) -> dict[str, Any]:
        """Return both messages and the picture."""
        messages = [
            {"role": "user", "content": self.question(sample)},
            {"role": "assistant", "content": sample.text},
        ]
        return {"messages": messages, "images": [path]}

    def close(self) -> None:
        """Finish the files, and write `dataset_info.json`, which tells LLaMA-Factory how to read them."""
        super().close()
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
        columns = {"messages": "messages", "images": "images"}
        info = {
            self.job.survey.splits.names[split]: {
                "file_name": self.file_name(split),
                "formatting": "sharegpt",
                "columns": columns,
                "tags": tags,
            }
            for split in sorted(self._files)
        }
        write_text(self.job.folder / "dataset_info.json", json_text(info) + "\n")


class DataFlow(Manifest):
    """For DataFlow-MM: `image` and `caption` for its evaluators, `images` and `conversations` for its editing pipeline.

    The instruction is the sample's text, or with a file of questions one of them.
    """

    absolute = True

    def entry(self, sample: Sample, path: str) -> dict[str, Any]:
        """Return the picture, under both names, and the instruction."""
        asked = self.job.questions
        instruction = asked.of(sample.id, sample.values) if asked else sample.text
        return {"image": path, "images": [path], "conversations": [{"role": "user", "content": instruction}]}
