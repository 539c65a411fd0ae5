"""Image files with what is known of them beside: for `datasets` (imagefolder), and with a text file for each image."""

import pyarrow as pa

from t2i_core.export.job import Job
from t2i_core.export.kinds import fitted
from t2i_core.export.samples import Sample
from t2i_core.export.tables import TableWriter
from t2i_core.export.text_files import JsonFile

METADATA = "metadata.jsonl"
# The same with the types of all columns, for `datasets`: the card of the export names it.
TYPED = "metadata-typed.parquet"


class ImageFolder:
    """Writes image files, and for each split `metadata.jsonl`."""

    def __init__(self, job: Job) -> None:
        assert job.placed is not None
        self._job, self._placed = job, job.placed
        self._kinds = job.survey.columns.in_json_lines()
        self._lines: dict[int, JsonFile] = {}
        self._tables: dict[int, TableWriter] = {}

    def write(self, sample: Sample) -> None:
        """Write a sample; return nothing before its image has its name."""
        self.place(sample)

    def place(self, sample: Sample) -> str:
        """Write a sample, and return the path of its image within its split."""
        if sample.split not in self._lines:
            self._open(sample.split)
        name = self._job.survey.splits.names[sample.split]
        path = self._placed.place(sample, name).removeprefix(f"{name}/")
        row = {name: fitted(kind, sample.values[name]) for name, kind in self._kinds.items()}
        self._lines[sample.split].write({"file_name": path, **row}, sample.position in self._job.survey.leading)
        self._tables[sample.split].write({"file_name": path, **sample.values})
        return path

    def close(self) -> None:
        """Finish the files."""
        self._placed.close()
        for lines in self._lines.values():
            lines.close()
        for table in self._tables.values():
            table.close()

    def _open(self, split: int) -> None:
        folder = self._job.split_folder(split)
        features = {"file_name": {"dtype": "string", "_type": "Value"}}
        first = (pa.field("file_name", pa.string()),)
        self._lines[split] = JsonFile(folder / METADATA)
        self._tables[split] = TableWriter(folder / TYPED, self._job.survey.columns, first, features)
        self._job.opened.callback(self._lines[split].abandon)
        self._job.opened.callback(self._tables[split].close)


class Captions(ImageFolder):
    """Writes image files, and beside each a text file of the same name."""

    def write(self, sample: Sample) -> None:
        """Write a sample."""
        self.place(sample)
        folder = self._job.split_folder(sample.split)
        (folder / f"{sample.id}.txt").write_text(sample.text, encoding="utf-8", newline="")
