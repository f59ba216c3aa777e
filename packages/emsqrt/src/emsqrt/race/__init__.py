"""emsqrt.race: race engines under one memory cap, each in a process of its own.

Layering: trace <- watch <- work, answers <- contenders (peer is their process) <- contest <- chart,
screen, picture. The results are shown without ranking: the settings, the end and the measurements
of each.
"""

from emsqrt.race.answers import Answer, read_answer
from emsqrt.race.contenders import (
    CONTENDERS,
    Attempt,
    AttemptFiles,
    Contender,
    GnuSort,
    Ours,
    SqlPeer,
)
from emsqrt.race.contest import Result, View, disagreeing, finals, race
from emsqrt.race.picture import picture
from emsqrt.race.screen import Screen
from emsqrt.race.watch import Ended, MemorySample, TreeReader, watch
from emsqrt.race.work import RaceQuery, work_for

__all__ = [
    "CONTENDERS",
    "Answer",
    "Attempt",
    "AttemptFiles",
    "Contender",
    "Ended",
    "GnuSort",
    "MemorySample",
    "Ours",
    "RaceQuery",
    "Result",
    "Screen",
    "SqlPeer",
    "TreeReader",
    "View",
    "disagreeing",
    "finals",
    "picture",
    "race",
    "read_answer",
    "watch",
    "work_for",
]
