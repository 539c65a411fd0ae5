"""Packages that only some models need."""

import importlib.util

from t2i_core.errors import ModelError


def check_installed(package: str, who: str) -> None:
    """Refuse what needs a package that is not installed; nothing is imported. `who` is for the message.

    Raises:
        ModelError: with the line that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"{who} needs the {package} package; pip install 'text2image[{package}]'")
