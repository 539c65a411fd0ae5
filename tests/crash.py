"""Run the flow and kill this very process with SIGKILL at a named point: `python -m tests.crash POINT COUNT FLAGS...`.

A point is a function of the product, wrapped from outside: `before:` or `after:` its COUNT-th call.
"""

import importlib
import itertools
import os
import signal
import sys

POINTS = {
    "temporary file before rename": ("before", "t2i_core.storage.files", "os.replace", "images"),
    "after an image": ("after", "t2i_core.storage.image_store", "ImageStore.write", None),
    "after the images before the result": ("after", "tasks.generation", "generate_shard", None),
    "after the result before the manifest": ("before", "tasks.manifest", "write_manifest", None),
    "while names change": ("after", "t2i_core.storage.image_store", "os.replace", None),
    "while Parquet is written": ("before", "t2i_core.output.provenance", "ScoreColumns.added_to", None),
    "before the manifest appears": ("before", "t2i_core.storage.files", "os.replace", "manifest.jsonl"),
}


def install(point, count):
    when, module_name, attribute, only = POINTS[point]
    owner = importlib.import_module(module_name)
    *path, name = attribute.split(".")
    if path == ["os"]:  # a function of the `os` module as this module sees it
        owner.os = type("PatchedOs", (), {n: staticmethod(f) if callable(f) else f for n, f in vars(os).items()})
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    numbers = itertools.count(1)  # several threads call: each call has a number of its own

    def wrapped(*arguments, **keywords):
        counts = only is None or only in str(arguments[-1])
        strikes = counts and next(numbers) == count
        if strikes and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **keywords)
        if strikes and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


if __name__ == "__main__":
    flags = [a for a in sys.argv[1:] if a.startswith("--")]
    point, count = (a for a in sys.argv[1:] if not a.startswith("--"))
    import flows.text2image  # noqa: F401 - so that what is wrapped below stays wrapped

    install(point, int(count))
    from flows.cli import main

    sys.exit(main(flags))
