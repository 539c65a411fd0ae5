"""The task that decodes every stored image of an output."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from t2i_core.output.verification import Verification, verify_images
from t2i_core.storage.image_store import ImageStore
from tasks.progress import progress


@task(name="verify images", task_run_name="verify images", cache_policy=NO_CACHE, persist_result=False)
def verify_images_task(images: ImageStore) -> Verification:
    """Decode them with all cores, and hash their pixels; the progress is shown as that of a run."""
    keys = [key.decode() for key in images.scan().keys]
    if not keys:
        return Verification()
    with progress(len(keys), ["verify"]) as shown:
        return verify_images(images, keys, shown.add_images)
