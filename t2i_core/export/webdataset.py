"""WebDataset: tar files in which the image, its text and its JSON stand together, with an index and a table beside."""

import io
import tarfile
from pathlib import Path

from t2i_core.export.job import Job
from t2i_core.export.samples import Sample
from t2i_core.export.sharded import Sharded
from t2i_core.export.tables import TableWriter
from t2i_core.json_values import json_text
from t2i_core.storage.files import write_text

INDEX = "wids-meta.json"


class TarShard:
    """A tar file with `<id>.png`, `<id>.txt` and `<id>.json` for each sample, and a Parquet file with the JSON."""

    def __init__(self, stem: Path, job: Job) -> None:
        self._table = TableWriter(stem.with_name(stem.name + ".parquet"), job.survey.columns)
        path = stem.with_name(stem.name + ".tar")
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - `close` closes it

    def write(self, sample: Sample, image: bytes, suffix: str) -> None:
        """Add a sample."""
        self._add(sample.id + suffix, image)
        self._add(f"{sample.id}.txt", sample.text.encode())
        self._add(f"{sample.id}.json", json_text(sample.values).encode())
        self._table.write(sample.values)

    def close(self) -> None:
        """Finish both files."""
        self._table.close()
        self._tar.close()

    def _add(self, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(name)  # of no time and no owner: equal content makes equal files
        entry.size, entry.mode = len(data), 0o644
        self._tar.addfile(entry, io.BytesIO(data))


class WebDataset(Sharded):
    """Writes tar files, and the wids index of each split."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, TarShard, (".parquet", ".tar"))
        self._shards = job

    def close(self) -> None:
        """Give every shard its name, then write the indexes."""
        super().close()
        job = self._shards
        assert job.assigned is not None
        for number, name in enumerate(job.survey.splits.names):
            shards = []
            for shard in job.assigned.shards:
                if shard.split == number:
                    size = (job.split_folder(number) / f"{shard.name}.tar").stat().st_size
                    shards.append({"url": f"{shard.name}.tar", "nsamples": len(shard.members), "filesize": size})
            if shards:
                index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": name, "shardlist": shards}
                write_text(job.split_folder(number) / INDEX, json_text(index) + "\n")
