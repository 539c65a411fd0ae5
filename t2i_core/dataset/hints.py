"""Which flag would read a row: hints that look at the values of columns, so that a run with the flag works."""

import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from t2i_core.dataset.bad_row import BadRow, joined
from t2i_core.dataset.cells import is_no_value, is_visible, is_written_value, json_value, row_id
from t2i_core.dataset.columns import Values, find, fold, objects_in
from t2i_core.dataset.conversation import conversation_texts, is_message, text_of

PROMPT_NAMES = ("prompt", "prompts", "text", "caption", "captions", "txt", "prompt_en", "prompt_cn", "prompt_zh")
CONVERSATION_NAMES = ("conversations", "conversation", "messages")
# Names that say little of themselves: they count after all others.
VAGUE_NAMES = ("instruction", "input", "content", "value", "description", "sentence", "sentences", "query", "question")
ANY_ROLE = frozenset(("user", "human"))

UNKNOWN = "name the column of prompts with --prompt-key, or that of conversations with --conversation-key"

ROWS_ASKED = 16  # of a table, for a hint
DEPTH = 3  # objects inside objects
# The ranks of what is known by its name; lower is better.
BY_PROMPT_NAME, BY_CONVERSATION_NAME, BY_VALUE, BY_PART_OF_NAME, BY_VAGUE_NAME, BY_SENTENCE = range(0, 60, 10)
DEPTH_COUNTS = 15  # a name inside an object is worth less than the next kind outside


def flag_hint(
    rows: Sequence[Values], is_table: bool, taken: Collection[str] = (), instead_of_prompt_key: bool = False
) -> str | None:
    """Return `use --prompt-key caption` or the like, for the column that holds the prompts of these rows, or None.

    taken: columns that the configuration uses for something else. instead_of_prompt_key: whether `--prompt-key` is
    given, which would hide a conversation.
    """
    ranks: dict[str, int] = {}
    flags: dict[str, Counter[str]] = {}
    rows = rows[:ROWS_ASKED]
    for values in rows:
        for path, value in _columns(values, is_table):
            listed = _as_list(value, is_table)
            rank, flag = _rank(path, listed), _flag(path, listed, is_table)
            if path not in taken and rank is not None and flag is not None and find(values, path, is_table)[1] == value:
                ranks[path] = min(rank, ranks.get(path, rank))
                flags.setdefault(path, Counter())[flag] += 1
    often = [path for path in flags if 2 * flags[path].total() >= len(rows)] or list(flags)
    best = min(often, key=lambda path: ranks[path], default=None)
    if best is None:
        return None
    if ranks[best] >= BY_SENTENCE and sum(ranks[path] == ranks[best] for path in often) > 1:
        return None  # several columns of sentences, and no name that says which
    # A column that holds lists in some rows and plain prompts in others is read as conversations.
    if "--conversation-key" not in flags[best]:
        return as_flag("use --prompt-key", best)
    return as_flag("use --conversation-key", best) + (" in place of --prompt-key" if instead_of_prompt_key else "")


def as_flag(flag: str, value: str) -> str:
    """Return a flag and its value as one types them in a shell."""
    return f"{flag}{'=' if value.startswith('-') else ' '}{shlex.quote(value)}"


def header_hint(names: Sequence[str]) -> str | None:
    """Return what to do about a table that seems to have no header; None where the names look like those of columns."""
    if len(names) == 1 and not _says_prompt(names[0]):
        return (
            "put the line 'prompt' above its first line and use --prompt-key prompt, or rename the file to .txt; if "
            f"{joined(names)!r} is the name of the column, {as_flag('use --prompt-key', names[0])}"
        )
    if any(map(_says_prompt, names)) or not any(_is_sentence(name, words=4) for name in names):
        return None
    return (
        "its first row looks like data, not like a header: put a line with the names of the columns above it, and name "
        "that of the prompts with --prompt-key"
    )


def id_hint(values: Values) -> str | None:
    """Return the flag for the column of ids, or None where no column is called so."""
    for name, value in values.items():
        if re.fullmatch(r"_*(.+_)?(id|key|uid|uuid)_*", fold(name)) and name.isprintable():
            try:
                row_id(value, name)
            except BadRow:
                continue
            return f"{as_flag('use --id-key', name)}, or leave --id-key out"
    return None


def row_hint(value: object) -> str:
    """Return the reason why a row that is no object is rejected."""
    if isinstance(value, str):
        return 'is not an object; write {"prompt": "..."} for each row and use --prompt-key prompt'
    if isinstance(value, list) and value and all(map(is_message, value)):
        return 'is not an object; write {"conversations": [...]} for each row'
    return "is not an object; write one JSON object for each row"


def _says_prompt(name: str) -> bool:
    """Return whether a name is that of a column of prompts, and not a prompt itself."""
    words = re.split(r"[\W_]+", fold(name))
    known = {*PROMPT_NAMES, *CONVERSATION_NAMES, *VAGUE_NAMES}
    return len(words) <= 3 and not known.isdisjoint([*words, fold(name)])


def _columns(values: Values, is_table: bool, above: str = "", depth: int = DEPTH) -> Iterator[tuple[str, object]]:
    """Yield (path, value) for the columns of a row and of the objects in it."""
    for name, value in values.items():
        yield f"{above}{name}", value
    if depth > 1:
        for name, inner in islice(objects_in(values, is_table), 20):
            yield from _columns(inner, is_table, f"{above}{name}.", depth - 1)


def _rank(path: str, value: object) -> int | None:
    """Return how likely a column holds the prompts, or None: it is known by its name, or by what its values are."""
    depth = DEPTH_COUNTS * path.count(".")
    name = re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path.rpartition(".")[2])).strip("_").casefold()
    if not path.isprintable() or "negative" in name:
        return None
    if name in PROMPT_NAMES:
        return BY_PROMPT_NAME + depth
    if name in CONVERSATION_NAMES:
        return BY_CONVERSATION_NAME + depth
    if isinstance(value, list) and value and all(map(is_message, value)):
        return (BY_VALUE if not depth else BY_SENTENCE) + depth
    is_sentence = isinstance(value, str) and _is_sentence(value)
    if is_sentence and (
        name.startswith(("prompt", "caption", "text_")) or name.endswith(("prompt", "caption", "_text"))
    ):
        return BY_PART_OF_NAME + depth
    if name in VAGUE_NAMES:
        return BY_VAGUE_NAME + depth
    return BY_SENTENCE + depth if is_sentence else None


def _as_list(value: object, is_table: bool) -> object:
    """Return the list that a text holds as JSON, where it is read as that list; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        listed = json_value(value)
        if isinstance(listed, list) and (is_table or (bool(listed) and all(map(is_message, listed)))):
            return listed
    return value


def _flag(path: str, value: object, is_table: bool) -> str | None:
    """Return the flag under which a value is read as prompts, found out by reading it."""
    if isinstance(value, str) and (is_no_value(value) or (is_table and is_written_value(value))):
        return None
    as_conversation = isinstance(value, list) and (
        any(map(is_message, value)) or (len(value) > 1 and all(isinstance(item, str) for item in value))
    )
    try:
        if as_conversation:
            conversation_texts(value, path, ANY_ROLE, is_table=False)
            return "--conversation-key"
        text_of(value, path)
    except BadRow:
        return None
    return "--prompt-key"


def _is_sentence(text: str, words: int = 2) -> bool:
    """Return whether a text has several words, or is long enough for a sentence without spaces, as in Chinese."""
    if not is_visible(text) or "://" in text or is_written_value(text):
        return False
    wide = sum(char > "\u2e7f" for char in text[:200])
    return len(text.split(maxsplit=words)) >= words or wide >= 3 * words
