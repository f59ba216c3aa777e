"""emsqrt.race: race engines under one memory cap, each in a process of its own.

Layering: trace <- watch <- work, answers <- contenders (peer is their process) <- contest <- chart,
screen, picture. The results are shown without ranking: the settings, the end and the measurements
of each.
"""

from emsqrt.race.answers import Answer, read_answer
from emsqrt.race.contenders import CONTENDERS, Attempt, Contender, GnuSort, Ours, Place, SqlPeer
from emsqrt.race.contest import Result, View, disagreeing, finals, race
from emsqrt.race.picture import picture
from emsqrt.race.screen import Screen
from emsqrt.race.watch import Ended, Look, TreeReader, watch
from emsqrt.race.work import Work, work_for

__all__ = [
    "CONTENDERS",
    "Answer",
    "Attempt",
    "Contender",
    "Ended",
    "GnuSort",
    "Look",
    "Ours",
    "Place",
    "Result",
    "Screen",
    "SqlPeer",
    "TreeReader",
    "View",
    "Work",
    "disagreeing",
    "finals",
    "picture",
    "race",
    "read_answer",
    "watch",
    "work_for",
]
