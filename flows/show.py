"""Show what a picture tells of itself, and the command that makes it again.

python -m flows.show FILE...
"""

import sys
from pathlib import Path

from flows.command import ExitCode, command_name
from flows.running import refuse
from t2i_core.errors import UserError

SUMMARY = "Show everything that an image file tells of its making, and the command that makes exactly it again."
USAGE = f"""\
Usage: {{name}} FILE [FILE ...]

{SUMMARY}

FILE: a named image, one by key in .t2i/images, or a copy of either anywhere.

Exit codes: 0 done, 2 a file is damaged, or holds no image of this tool.
"""


def main(arguments: list[str]) -> int:
    """Print what each file tells; return the exit code."""
    usage = USAGE.format(name=command_name("show"))
    if not arguments or {"-h", "--help"} & set(arguments):
        print(usage)
        return ExitCode.OK if arguments else ExitCode.WRONG_USE
    from t2i_core.reports.picture_lines import picture_lines, read_picture_file

    code = ExitCode.OK
    for number, name in enumerate(arguments):
        if number:
            print()
        try:
            file = read_picture_file(Path(name))
        except UserError as error:
            code = ExitCode(refuse(str(error)))
            continue
        print(picture_lines(file, command_name()))
        if file.damage:
            code = ExitCode(refuse(f"{name} is damaged: {file.damage}; the record above is what it carries"))
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
