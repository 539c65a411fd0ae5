"""Stored images as reports show them. One that is damaged is deleted, so that it is made again."""

import logging
from collections.abc import Iterable

from PIL import Image

from t2i_core.errors import DamagedImage
from t2i_core.planning.catalog import Picture
from t2i_core.storage.formats import read_image
from t2i_core.storage.image_store import ImageStore

log = logging.getLogger(__name__)


def read_picture(key: str, images: ImageStore) -> Image.Image | None:
    """Return the pixels of a stored image; None where there is none, or a damaged one, which is deleted and named."""
    data = images.read(key)
    if data is None:
        return None
    try:
        return read_image(data).image
    except DamagedImage as error:
        images.delete(key)
        log.warning("damaged   %s: %s; it is made again, if not now, by the next run", images.location(key), error)
        return None


def delete_damaged(pictures: Iterable[Picture], images: ImageStore) -> bool:
    """Delete those of `pictures` that are damaged; return whether one is not there any more."""
    lost = [key for key in dict.fromkeys(picture.key for picture in pictures) if read_picture(key, images) is None]
    return bool(lost)
