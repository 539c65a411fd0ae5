"""Parts of a run: what each says at its end, and how all of them stand."""

import logging
import os
import re
from collections.abc import Iterable
from math import gcd

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.outcomes import ended
from t2i_core.config import Config
from t2i_core.output.accounting import exceeds
from t2i_core.output.part_marks import PartMark, PartMarks, PartState
from t2i_core.planning.catalog import Catalog
from t2i_core.planning.parts import Counts, Part, count_parts
from t2i_core.planning.plan import Plan
from t2i_core.storage.leases import Lease
from t2i_core.storage.workspace import Workspace

log = logging.getLogger(__name__)

REASONS_SHOWN = 5
_PART = re.compile(r"[1-9]\d{0,8}/[1-9]\d{0,8}")


def makes(part: Part | None, config: Config) -> str:
    """Return what the lease of a run says that it makes, empty for a few images; `part`: None for all."""
    return "" if config.only_looks or config.preview or config.only else str(part or Part(1, 1))


def note_part(part: Part, workspace: Workspace, run: str, plan: str, state: PartState) -> None:
    """Write what has become of a part; `plan`: the digest of its data set and settings."""
    PartMarks(workspace).note(part, PartMark.of(run, plan, state))


def begin_part(part: Part | None, workspace: Workspace, lease: Lease, run: str, plan: str) -> None:
    """Note that this run makes a part; warn of living runs that make images of it, or that it does not belong to.

    `part`: None for a run of all images. `plan`: the digest of its data set and settings.
    """
    with workspace.lock():
        others = [(Part.parse(other.makes), other) for other in lease.others() if _PART.fullmatch(other.makes)]
        if part is not None:
            note_part(part, workspace, run, plan, PartState.RUNNING)
    same = [(theirs, other) for theirs, other in others if _meet(part or Part(1, 1), theirs)]
    for theirs, other in same[:1]:
        title = "all images" if theirs.total == 1 else f"part {theirs}"
        more = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
        log.warning("part      %s makes %s%s: some images are made twice", *(other.holder, title, more))
    unlike = [(theirs, other) for theirs, other in others if theirs.total > 1 and other.plan != plan]
    for theirs, other in unlike[:1] if part is not None else ():
        log.warning(
            "part      %s makes part %s of another data set or with other settings: the two do not belong together",
            *(other.holder, theirs),
        )
    if part is not None:
        log.info("part      this run makes part %s", part)


def _meet(part: Part, other: Part) -> bool:
    """Return whether an image can fall to both."""
    return (part.number - other.number) % gcd(part.total, other.total) == 0


def end_part(part: Part, catalog: Catalog, config: Config) -> State[object]:
    """Say what became of a part; return the state of its run, by `max_failures` of the part's images.

    torchrun ends all other parts as soon as one does not end well, so for torchrun it always does.
    """
    counts = count_parts(catalog, part.total)[part.number - 1]
    own = [reason for key, reason in catalog.failures().items() if part.has_key(key)]
    lines = [f"part      {part}: {_counts(counts)}"]
    lines += [f"failed    {reason}" for reason in list(dict.fromkeys(own))[:REASONS_SHOWN]]
    again = {"refresh": config.refresh, "retry-failed": config.retry_failed, "reseed": config.reseed}
    without = " and ".join(["--part", *(f"--{name}" for name, value in again.items() if value)])
    lines.append(f"next      when all parts are done, run the same command without {without}: it writes the manifest")
    log.info("\n".join(lines))
    too_many = exceeds(counts.failed, counts.images, config.max_failures)
    return ended(f"part {part}: {_counts(counts)}", too_many=too_many and "TORCHELASTIC_RUN_ID" not in os.environ)


def show_status(catalog: Catalog) -> State[object]:
    """Say what of the data set is made, failed and missing, in all and by part; return the state of the run."""
    marks = PartMarks(catalog.workspace).latest()
    total = next(iter(marks)).total if marks else 1
    counts = count_parts(catalog, total)
    message = f"{catalog.plan.images} images: {_counts(_sum(counts))}"
    lines = [f"status    {message}"]
    if marks:
        done = sum(not part.missing and not part.failed for part in counts)
        lines.append(f"parts     {done} of {total} complete, as they were started last")
        lines += [
            f"part      {Part(number, total)}: {_counts(part)}; {_state(marks.get(Part(number, total)), catalog.plan)}"
            for number, part in enumerate(counts, start=1)
            if part.missing or part.failed
        ]
    log.info("\n".join(lines))
    return Completed(message=message)


def _counts(counts: Counts) -> str:
    return f"{counts.made} made, {counts.failed} failed, {counts.missing} missing"


def _sum(counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for part in counts:
        total = Counts(total.made + part.made, total.failed + part.failed, total.missing + part.missing)
    return total


def _state(mark: PartMark | None, plan: Plan) -> str:
    if mark is None:
        return "never started"
    other = ", with another data set or other settings" if mark.plan not in ("", plan.digest) else ""
    if mark.state is PartState.RUNNING:
        return f"running, or killed, on {mark.host} since {mark.time}{other}"
    return f"{mark.state} on {mark.host} at {mark.time}{other}"
