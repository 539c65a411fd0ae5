"""Lines -> the records of a CSV file, by RFC 4180, so that a stray quotation mark costs its own line and no other."""

import csv
import re
from collections import deque
from collections.abc import Iterator
from itertools import accumulate

# Characters. A longer cell is taken for a quotation mark that is never closed; the csv module's own limit is 131,072.
MAX_CELL = 1 << 25

_QUOTED_CELL = re.compile(r'"(?:[^"]|"")*+"')
_FIX = "quote the cell, and double the quotation marks in it"

Line = tuple[int, str, str | None]  # its number, its text with its end, what is wrong with it

# (the first line that it takes up; the last; its cells; what is wrong with it; then also the line at fault). A plain
# tuple: one is made for every row, and a class of its own would cost eight times as much.
Record = tuple[int, int, list[str], str | None, str]


class CsvRecords:
    """The records of a table, in order. Every line that is not blank is part of exactly one record.

    A record that breaks the rules ends with the line that opened the cell at fault, and reading goes on at the next:
    the lines that the cell would have swallowed are records of their own.
    """

    def __init__(self, lines: Iterator[Line], separator: str) -> None:
        csv.field_size_limit(max(MAX_CELL, csv.field_size_limit()))
        self._lines, self._separator = lines, separator
        self._columns = 0  # of the first record, the header
        self._ahead: deque[Line] = deque()  # read already, and to be read again
        self._taken: list[Line] = []  # by the record that is being read
        # The line of the last stray quotation mark, until the cell that it broke must have ended; and the line up to
        # which it has not: where the mark was noticed.
        self._stray, self._noticed = 0, 0
        mark = re.escape(separator)
        self._unquoted_cell = re.compile(rf"[^{mark}\r\n]*+")
        cell = rf'(?:"(?:[^"]|"")*+"|[^"{mark}\r\n]*+)'
        self._by_the_rules = re.compile(rf"{cell}(?:{mark}{cell})*+[\r\n]*+")

    def __iter__(self) -> Iterator[Record]:
        """Yield the records."""
        taken, reader = self._taken, self._reader()
        while True:
            taken.clear()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._broken(str(error))
            else:
                self._columns = self._columns or len(cells)
                if len(taken) > 1:
                    yield self._over_several_lines(cells)
                else:
                    number, text, problem = taken[0]
                    if self._stray and '"' in text:
                        problem = self._end_of_broken_cell(number, text) or problem
                    if cells and text.strip():
                        yield number, number, cells, problem, text if problem else ""
                    continue
            if self._ahead:
                reader = self._reader()

    def _reader(self) -> Iterator[list[str]]:
        return csv.reader(self._feed(), delimiter=self._separator, strict=True)

    def _feed(self) -> Iterator[str]:
        ahead, taken = self._ahead, self._taken
        while ahead:
            taken.append(ahead.popleft())
            yield taken[-1][1]
        for line in self._lines:
            taken.append(line)
            yield line[1]

    def _over_several_lines(self, cells: list[str]) -> Record:
        """Return a record that takes up several lines; only part of it where it holds rows that it should not hold."""
        first, last, text = self._taken[0][0], self._taken[-1][0], self._text()
        if len(cells) != self._columns and holds_rows(cells, self._columns, self._separator):
            start = next(start for start, end in self._cells(text) if _several_lines(text[start:end]))
            why = f"has {len(cells)} fields up to line {last} where the header has {self._columns}"
            return self._cut(start, f"{why}; a quotation mark in this line may be one too many: {_FIX}")
        problem = next((line[2] for line in self._taken if line[2]), None)
        if self._stray:
            problem = self._end_of_broken_cell(last, text) or problem
        return first, last, cells, problem, text if problem else ""

    def _broken(self, error: str) -> Record:
        """Return a record that breaks the rules: it ends with the line in which its last cell begins."""
        text = self._text()
        start, end = list(self._cells(text))[-1]
        if not text.startswith('"', start):
            why = error  # such as a carriage return in the cell
        elif _QUOTED_CELL.match(text, start) is None:
            why = "a quotation mark in this line opens a cell that is never closed"
        elif _several_lines(text[start:end]):
            why = f"a quotation mark in this line opens a cell that ends amid line {self._taken[-1][0]}"
        else:
            why = "text follows the closing quotation mark of a cell"
        return self._cut(start, f"is not CSV: {why}; {_FIX}")

    def _cut(self, position: int, problem: str) -> Record:
        """Return the record up to the line of this position in its text; the lines below are read again."""
        ends = accumulate(len(line[1]) for line in self._taken)
        count = next(count for count, end in enumerate(ends, 1) if position < end)
        own, below = self._taken[:count], self._taken[count:]
        self._stray, self._noticed = own[-1][0], self._taken[-1][0]
        self._ahead.extendleft(reversed(below))
        return own[0][0], own[-1][0], [], own[-1][2] or problem, own[-1][1]

    def _end_of_broken_cell(self, last: int, text: str) -> str | None:
        """Return what is wrong with the first record below a stray quotation mark that has one, too.

        Elsewhere a mark within a cell is text. Here it may end the cell that was broken: what is before it is the last
        line of a prompt, and no prompt. The lines that the stray mark would have swallowed are all such records.
        """
        stray = self._stray
        if last >= self._noticed:
            self._stray = 0
        if self._by_the_rules.fullmatch(text):
            return None
        return f"is not CSV: a cell holds a quotation mark, below a stray one in line {stray}; {_FIX}"

    def _text(self) -> str:
        return "".join(line[1] for line in self._taken)

    def _cells(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where each cell of a record begins and ends, up to the first that breaks the rules."""
        start = 0
        while True:
            quoted = text.startswith('"', start)
            cell = (_QUOTED_CELL if quoted else self._unquoted_cell).match(text, start)
            end = cell.end() if cell else len(text)
            yield start, end
            if not text.startswith(self._separator, end):
                return
            start = end + 1


def holds_rows(cells: list[str], columns: int, separator: str) -> bool:
    """Return whether a cell spans lines and holds as many separators as a row has: it may be rows that were merged."""
    return columns > 1 and any(_several_lines(cell) and cell.count(separator) >= columns - 1 for cell in cells)


def _several_lines(cell: str) -> bool:
    return "\n" in cell or "\r" in cell
