"""Two small made-up datasets, the same each time: the employees of some offices, and what they sell.

`platform sample` loads them, so that a network has something to share and to join.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from random import Random

__all__ = ["EXAMPLE", "SAMPLES", "write_sample"]

Row = tuple[object, ...]

EXAMPLE = (
    "SELECT office, count(*) AS employees, round(avg(salary)) AS mean_salary "
    "FROM employees GROUP BY office ORDER BY office"
)

_FIRST_NAMES = (
    "Ada",
    "Bo",
    "Chidi",
    "Dana",
    "Elif",
    "Femi",
    "Greta",
    "Hiro",
    "Ines",
    "Jan",
    "Kaia",
)
_LAST_NAMES = (
    "Aalto",
    "Berg",
    "Costa",
    "Dietz",
    "Egede",
    "Fabre",
    "Gallo",
    "Haas",
    "Ito",
    "Jonker",
)
_OFFICES = ("Bern", "Oslo", "Rome", "Turku", "Wien")
_SALARIES = {"Engineering": 72_000, "Finance": 64_000, "Sales": 56_000, "Support": 48_000}
_ITEMS = {"Chairs": 120.0, "Desks": 340.0, "Lamps": 45.0, "Paper": 6.0, "Screens": 260.0}
_ADJECTIVES = ("Basic", "Compact", "Light", "Modern", "Nordic", "Plain", "Robust", "Slim")
_EMPLOYEES = 500
_FIRST_DAY = date(2012, 1, 2)
_DAYS = 5_000


def _employees() -> Iterator[Row]:
    yield "id", "name", "office", "department", "salary", "hired"
    chance = Random(1)
    for number in range(1, _EMPLOYEES + 1):
        department = chance.choice(sorted(_SALARIES))
        name = f"{chance.choice(_FIRST_NAMES)} {chance.choice(_LAST_NAMES)}"
        salary = round(_SALARIES[department] * chance.uniform(0.8, 1.5), -2)
        hired = _FIRST_DAY + timedelta(days=chance.randrange(_DAYS))
        yield number, name, chance.choice(_OFFICES), department, int(salary), hired.isoformat()


def _products() -> Iterator[Row]:
    yield "id", "name", "category", "price", "stock"
    chance = Random(2)
    number = 0
    for category, price in sorted(_ITEMS.items()):
        for adjective in _ADJECTIVES:
            number += 1
            cost = f"{price * chance.uniform(0.6, 1.8):.2f}"
            yield number, f"{adjective} {category.lower()}", category, cost, chance.randrange(400)


_ROWS = {"employees": _employees, "products": _products}
SAMPLES: Sequence[str] = tuple(_ROWS)
"""The names of the datasets."""


def write_sample(name: str, folder: Path) -> Path:
    """Write a dataset as a CSV file.

    Args:
        name: One of `SAMPLES`.
        folder: Where the file is made.

    Returns:
        The file.
    """
    path = folder / f"{name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(_ROWS[name]())
    return path
