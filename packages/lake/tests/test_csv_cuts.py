"""Cutting CSV at record ends: no row is lost, split or changed, whatever the file and its parts look like."""

from __future__ import annotations

import csv
import io
import random
from itertools import pairwise
from pathlib import Path

import pytest

from emsqrt.io.records import CsvDialect
from lake.ingest import csv_cuts, csv_marks
from lake.ingest.csv_cuts import is_regular, record_start_at, record_starts, states_of
from lake.ingest.csv_marks import PartMarks, mark_part, odd_quotes
from lake.uploads.csv_ranges import CsvRanges
from lake.uploads.parts import PartStore
from lake.uploads.upload import UploadInfo
from sennit_core.errors import BadInput, Conflict, Unsupported

DELIMITERS = (",", ";", "\t", "|")
WORDS = ("", "a", "42", "x y", "Straße", "数", "👍", "1.5", "NULL", " ")
NASTY = (
    ",",
    ";",
    "\t",
    "|",
    "\n",
    "\r\n",
    "\r",
    "a\nb",
    "\n\n",
    '"',
    '""',
    'x"y',
    '",',
    "\n,\n",
    '"\n"',
)


def nasty_csv(draw: random.Random, delimiter: str) -> tuple[bytes, bool]:
    """A file with quoted line ends, doubled quotes and the like; and whether its quotes are regular."""
    line_end = draw.choice(["\n", "\r\n", "\n", "\r"])
    width, is_regular_file = draw.randint(1, 4), draw.random() < 0.7
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end)
    for _ in range(draw.randint(0, 12)):
        row = [draw.choice(NASTY if draw.random() < 0.4 else WORDS) for _ in range(width)]
        if is_regular_file or draw.random() < 0.5:
            writer.writerow(row)
            continue
        # Quotes where RFC 4180 has none: inside an unquoted field, and after a closing quote.
        stray = draw.choice(['5" pipe', 'a"b"', '"a"b', '"a"b"c', 'x"'])
        others = [draw.choice(WORDS) for _ in range(width - 1)]
        out.write(delimiter.join([stray, *others]) + line_end)
    text = out.getvalue()
    if draw.random() < 0.3:
        text = text.rstrip("\r\n") if not text.endswith('"') else text
    if draw.random() < 0.2:
        text += line_end * 2
    return text.encode(), is_regular_file


def rows_of(data: bytes, delimiter: str) -> list[list[str]]:
    text = io.StringIO(data.decode(), newline="")
    return [row for row in csv.reader(text, delimiter=delimiter) if row]


def parts_of(draw: random.Random, data: bytes) -> list[bytes]:
    size = draw.choice([1, 1, 2, 3, 7, 20])
    return [data[at : at + size] for at in range(0, len(data), size)]


def marks_of(draw: random.Random, parts: list[bytes], delimiter: str) -> list[PartMarks]:
    """The marks of parts, made in any order."""
    found: dict[int, PartMarks] = {}
    order = list(range(len(parts)))
    draw.shuffle(order)
    for index in order:
        before = parts[index - 1][-1] if index else None
        found[index] = mark_part(io.BytesIO(parts[index]), ord(delimiter), ord('"'), before)
        assert found[index].odd == odd_quotes(io.BytesIO(parts[index]), ord('"'))
    return [found[index] for index in range(len(parts))]


def check_file(seed: int) -> bool:
    """Cut one generated file at every part; return whether the parity told where."""
    draw = random.Random(seed)
    csv_marks.BLOCK_BYTES = draw.choice([1, 2, 5, 64, 4096])
    delimiter = draw.choice(DELIMITERS)
    data, was_regular = nasty_csv(draw, delimiter)
    parts, dialect = parts_of(draw, data), CsvDialect(delimiter=delimiter)
    marks = marks_of(draw, parts, delimiter)
    regular = is_regular(marks)
    assert regular or not was_regular, "a writer's file is regular"
    places = [sum(map(len, parts[:index])) for index in range(1, len(parts))]
    file = io.BufferedReader(io.BytesIO(data))
    slowly = list(record_starts(file, 0, places, dialect))
    cuts = slowly
    if regular:
        states = states_of(marks)[1:]
        cuts = [
            record_start_at(file, place, dialect, inside=inside)
            for place, inside in zip(places, states, strict=True)
        ]
        assert cuts == slowly, "both ways find the same ends"
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut is not None)})
    ranges = [data[a:b] for a, b in pairwise(bounds)]
    found = [row for piece in ranges for row in rows_of(piece, delimiter)]
    assert found == rows_of(data, delimiter), f"seed {seed}"
    return regular


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `check_file` choose in which pieces a part is read."""
    monkeypatch.setattr(csv_marks, "BLOCK_BYTES", csv_marks.BLOCK_BYTES)


@pytest.mark.usefixtures("small_blocks")
def test_no_row_of_nasty_files_is_lost_split_or_changed() -> None:
    regular = [check_file(seed) for seed in range(300)]

    assert 150 < sum(regular) < 300, "both ways were tried"


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("small_blocks")
def test_no_row_of_many_nasty_files_is_lost_split_or_changed() -> None:
    assert sum(check_file(seed) for seed in range(1000, 9000)) > 4000


def test_a_long_record_is_cut_at_its_end_or_refused_with_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = b'a,"' + b"x\n" * 200_000 + b'"\n1,2\n'
    dialect = CsvDialect()

    def search(*, by_parity: bool) -> int | None:
        file = io.BufferedReader(io.BytesIO(data))
        if by_parity:
            return record_start_at(file, 1000, dialect, inside=True)
        return next(record_starts(file, 0, [1000], dialect))

    for by_parity, begin in ((True, 1000), (False, 0)):
        assert search(by_parity=by_parity) == len(data) - 4
        with monkeypatch.context() as patch:
            patch.setattr(csv_cuts, "RECORD_BYTES_MAX", 100_000)
            with pytest.raises(BadInput, match="longer than") as caught:
                search(by_parity=by_parity)
            assert caught.value.byte_offset == begin


CSV = b"id,note\n" + b"".join(b'%d,"say ""hi""\nand bye %d"\n' % (i, i) for i in range(400))


def started(
    store: PartStore, data: bytes, name: str = "a.csv", part_bytes: int = 1000
) -> UploadInfo:
    return store.start(name, len(data), part_bytes=part_bytes)


def send(store: PartStore, upload: UploadInfo, data: bytes, *indexes: int) -> None:
    for index in indexes:
        with store.open_part(upload.id, index) as part:
            part.write(data[index * upload.part_bytes : (index + 1) * upload.part_bytes])
            part.commit()


def test_ranges_grow_as_parts_arrive_in_any_order(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    ranges, upload = CsvRanges(store), started(store, CSV)
    last = (upload.parts or 0) - 1
    send(store, upload, CSV, *range(last, 3, -1), 1, 0)

    early = ranges.find(upload.id, 1)
    with pytest.raises(Conflict):
        ranges.read(upload.id, 0, len(CSV))
    send(store, upload, CSV, 2, 3)
    late = ranges.find(upload.id, 2000)

    assert (early.header, early.regular, early.whole) == ("id,note\n", True, False)
    assert late.whole
    assert set(early.bounds) & set(late.bounds), "cuts do not move"
    pieces = [ranges.read(upload.id, a, b) for a, b in pairwise(late.bounds)]
    assert len(pieces) > 3
    found = [row for piece in pieces for row in rows_of(piece, ",")]
    assert found == rows_of(CSV, ",")[1:]


@pytest.mark.parametrize(
    ("data", "header", "regular"),
    [
        (b"\xef\xbb\xbf" + CSV, "id,note\n", True),
        (CSV.replace(b"\n", b"\r\n").replace(b",", b";"), "id;note\r\n", True),
        (b"size,name\n" + b'5" pipe,x\n1,"a\nb"\n' * 200, "size,name\n", False),
        (b"1,2\n3,4\n" * 300, "", True),
    ],
    ids=["mark", "crlf", "stray quotes", "no header"],
)
def test_ranges_of_dialects(tmp_path: Path, data: bytes, header: str, regular: bool) -> None:
    store = PartStore(tmp_path)
    ranges, upload = CsvRanges(store), started(store, data, part_bytes=100)
    send(store, upload, data, *range(upload.parts or 0))

    found = ranges.find(upload.id, 300)

    assert (found.header, found.regular) == (header, regular)
    pieces = [ranges.read(upload.id, a, b) for a, b in pairwise(found.bounds)]
    whole = rows_of(data.removeprefix(b"\xef\xbb\xbf"), found.delimiter)
    assert [r for piece in pieces for r in rows_of(piece, found.delimiter)] == whole[bool(header) :]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'a,b\n1,"never closed\n' + b"2,3\n" * 100, BadInput),
        ("a,b\n1,2\n".encode("utf-16-le"), Unsupported),
        (b'{"a": 1}\n' * 30, Unsupported),
    ],
    ids=["quote", "utf-16", "json"],
)
def test_what_has_no_ranges_says_why(tmp_path: Path, data: bytes, error: type[Exception]) -> None:
    store = PartStore(tmp_path)
    name = "a.jsonl" if error is Unsupported else "a.csv"
    upload = started(store, data, name, part_bytes=50)
    with pytest.raises(Conflict):
        CsvRanges(store).find(upload.id, 100)
    send(store, upload, data, *range(upload.parts or 0))

    with pytest.raises(error):
        CsvRanges(store).find(upload.id, 100)
