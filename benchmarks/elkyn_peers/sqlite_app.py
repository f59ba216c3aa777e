"""What a careful team would write first: FastAPI over SQLite that syncs before it answers."""

from __future__ import annotations

import json
import os
import sqlite3
from typing import Any

from fastapi import FastAPI, Request

app = FastAPI()
base = sqlite3.connect(os.environ["TREE_DB"], isolation_level=None, check_same_thread=False)
base.execute("PRAGMA journal_mode=WAL")
base.execute("PRAGMA synchronous=FULL")
base.execute("CREATE TABLE IF NOT EXISTS tree (path TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")


@app.put("/r/{key}")
async def put(key: str, request: Request) -> Any:
    value = json.loads(await request.body())
    base.execute("INSERT OR REPLACE INTO tree VALUES (?, ?)", (key, json.dumps(value)))
    return value


@app.get("/r/{key}")
async def get(key: str) -> Any:
    row = base.execute("SELECT value FROM tree WHERE path = ?", (key,)).fetchone()
    return None if row is None else json.loads(row[0])
