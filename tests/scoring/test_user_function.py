"""The user's own function as a scorer: what it gets, what it may return, and what its version is made of."""

import numpy as np
import pytest

from t2i_core.errors import ConfigError
from t2i_core.scoring.interface import ScoredImage
from t2i_core.scoring.user_function import UserFunction

IMAGES = [ScoredImage(np.full((4, 6, 3), value, np.uint8), f"prompt {value}") for value in (10, 20)]


@pytest.fixture
def function(tmp_path):
    """Write a source file; return its function `f` as a scorer."""

    def write(source):
        (tmp_path / "mine.py").write_text(source)
        return UserFunction(f"{tmp_path / 'mine.py'}:f")

    return write


def test_it_gets_images_of_pillow_and_gives_a_column_of_its_name(function):
    scorer = function("def f(images):\n    return [image.size[0] + image.getpixel((0, 0))[2] for image in images]\n")
    assert scorer.score(IMAGES) == {"score_f": [16, 26]}
    assert (scorer.name, scorer.reads_prompt) == ("f", False)


def test_with_two_arguments_it_gets_the_prompts_and_its_scores_belong_to_them(function):
    scorer = function("def f(images, prompts, *, scale=2):\n    return {'last': [p[-2:] for p in prompts]}\n")
    assert scorer.score(IMAGES) == {"score_f_last": ["10", "20"]}
    assert scorer.reads_prompt


def test_scores_come_as_plain_values_and_what_is_not_finite_as_none(function):
    source = (
        "import numpy as np\ndef f(images):\n    return dict(a=np.array([1, 2]), b=[np.nan, True], c=[None, 'x'])\n"
    )
    scores = function(source).score(IMAGES)
    assert scores == {"score_f_a": [1.0, 2.0], "score_f_b": [None, True], "score_f_c": [None, "x"]}
    assert isinstance(scores["score_f_a"][0], float)


def test_its_version_is_that_of_its_source(function):
    one, same, other = (function(f"def f(images):\n    return [{n}] * len(images)\n") for n in (1, 1, 2))
    assert one.version == same.version != other.version


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def g(images): pass", "defines no function 'f'"),
        ("def f(images, prompts, more): pass", "takes 3 arguments; it gets images, or images and prompts"),
        ("def f(): pass", "takes 0 arguments"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_before_it_is_imported(function, source, problem):
    with pytest.raises(ConfigError, match=f"^score: .*{problem}"):
        function(source)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import nothing_of_that_name\ndef f(images): pass", "cannot be imported: ModuleNotFoundError"),
        ("def f(images): return [1]", "returns 1 scores for 2 images"),
        ("def f(images): return 1", "returns 1; return a list"),
        ("def f(images): return 'ab'", "returns 'ab'; return a list"),
        ("def f(images): return {'a b': [1, 2]}", "returns a column 'a b'"),
    ],
)
def test_what_it_returns_is_checked(function, source, problem):
    with pytest.raises(ConfigError, match=problem):
        function(source).score(IMAGES)


def test_a_score_of_another_type_is_an_error_of_that_image(function):
    with pytest.raises(TypeError, match="is no number, text, true or false, nor None"):
        function("def f(images): return [[1], 2]").score(IMAGES)
