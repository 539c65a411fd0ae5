"""What is refused before a server is started and Prefect or torch is imported: mistakes that small files show."""

from importlib.util import find_spec
from pathlib import Path

from flows.dask_scheduler import check_dask_scheduler
from flows.launchers import check_launcher
from t2i_core.config import Config, parse_lora
from t2i_core.dataset.sources import check_dataset
from t2i_core.errors import ConfigError
from t2i_core.local_paths import check_writable, is_folder, is_url
from t2i_core.models.adapters import find_adapter
from t2i_core.models.checkpoints import check_request
from t2i_core.models.file_contents import check_lora
from t2i_core.models.prepare import prepare_digest
from t2i_core.models.request import model_request
from t2i_core.models.schedulers import check_scheduler
from t2i_core.models.tensor_names import read_shapes
from t2i_core.output.identity import check_files
from t2i_core.output.layout import GALLERY
from t2i_core.output.references import check_references
from t2i_core.output.writable import check_has_images
from t2i_core.reports.gallery.folder import GalleryFolder
from t2i_core.storage.workspace import Workspace


def check_at_once(config: Config) -> None:
    """Refuse what cannot work, without network: a run repeats these checks, for a deployment has no command line.

    Raises:
        UserError: for the first mistake, in one line with the fix.
    """
    if config.only_verifies:
        check_has_images(Path(config.output))
        return
    # Files on other machines are not asked for here: the packages that reach them take long to import.
    check_dataset([name for name in config.dataset_names if not is_url(name)])
    files = check_request(model_request(config), config.revision)
    for entry in config.lora:
        name = parse_lora(entry)[0]
        if file := find_adapter(name):
            check_lora(name, read_shapes("lora", name, file))
    check_scheduler(
        config.scheduler,
        config.scheduler_options,
        lora=bool(config.lora),
        pipeline_class=files.pipeline_class if files else None,
        own=files.configs.get("scheduler", {}) if files else None,
        steps=config.steps,
    )
    if config.prepare:
        prepare_digest(config.prepare)
    check_launcher(config)
    check_files(Workspace(config.output), config)
    if config.gallery == "always":
        GalleryFolder(Path(config.output) / GALLERY).check()
    check_references(config.only or ())
    check_workers(config)
    _check_cache("cache_dir", config.cache_dir)
    _check_cache("local_dir", config.local_dir)


def check_workers(config: Config) -> None:
    """Refuse several processes on one card by its name, without the packages for them, or without a scheduler.

    A run that only looks starts none: it goes anywhere.

    Raises:
        ConfigError: saying what to leave out, to install or to start.
    """
    if not config.needs_device:
        return
    option = "dask_scheduler" if config.dask_scheduler else "workers"
    if not config.has_one_device and ":" in config.device:
        raise ConfigError([f"device: {config.device} is one card; leave device or {option} out"])
    if config.dask_scheduler:
        check_dask(option, config.dask_scheduler)
        _check_server(config.dask_scheduler)
        check_dask_scheduler(config.dask_scheduler)
    if isinstance(config.workers, int) and config.workers > 1:
        check_dask(option, config.workers)


def _check_server(scheduler: str) -> None:
    """Refuse workers on other machines without a server of Prefect that they can reach, too.

    Raises:
        ConfigError: where the run would start a server for itself.
    """
    from tasks.server import needs_own_server  # Prefect takes long to import

    if needs_own_server():
        fix = "start one with `prefect server start --host 0.0.0.0`, and name it in PREFECT_API_URL"
        raise ConfigError([f"dask_scheduler: workers need Prefect's server, too: {fix} (got {scheduler})"])


def check_dask(option: str, value: object) -> None:
    """Refuse an option for several processes where the packages for them are not installed.

    Raises:
        ConfigError: saying how to install them.
    """
    if find_spec("prefect_dask") is None:
        raise ConfigError(
            [f"{option}: several processes need prefect-dask; pip install 'text2image[dask]' (got {value})"]
        )


def _check_cache(option: str, folder: str | None) -> None:
    """Refuse a folder for downloads that can be neither entered nor made. One that cannot be written may hold all."""
    if folder is None:
        return
    try:
        if not is_folder(Path(folder)):
            check_writable(Path(folder))
    except ValueError as error:
        raise ConfigError([f"{option}: {folder} {error}"]) from None
