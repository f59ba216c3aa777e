"""Bundles: what is exported is imported, and nothing of a bundle that is not right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.access.quotas import UserQuota
from lake.access.rules import PolicyRule
from lake.bundles import (
    Bundle,
    BundleReport,
    ExportRequest,
    ImportRequest,
    export_bundle,
    import_bundle,
)
from lake.bundles import format as bundle_format
from lake.bundles.format import BundleDataset, BundleHead, BundleWriter
from lake.objects.store import ObjectWriter
from lake.peers.sharing.seeding import Seeder
from lake.statements.limits import Requester
from sennit_core.errors import (
    BadInput,
    Cancelled,
    Conflict,
    Corrupt,
    Denied,
    NotFound,
    SennitError,
    StorageFull,
    Unsupported,
    UsageError,
)
from sennit_core.hashing import ObjectDigest, ObjectHasher, canonical_json
from sennit_core.ids import new_id

PASSPHRASE = "correct horse battery"
TABLE = pa.table({"id": [1, 2, 3], "name": ["a", "b", None]})
MORE = pa.table({"id": [4, 5], "name": ["c", "d"]})
SLOW_KEY_OF = bundle_format._key_of
ALONE = Seeder(lambda _work: pytest.fail("there is no network"), lambda: None)


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive keys by one hash instead of scrypt: hundreds of bundles are opened."""
    monkeypatch.setattr(
        bundle_format, "_key_of", lambda p, salt: hashlib.sha256(p.encode() + salt).digest()
    )


@pytest.fixture
def lake(tmp_path: Path, pool: ExecutorPool) -> Iterator[Lake]:
    with Lake(tmp_path / "lake", pool=pool) as found:
        found.append("trips", TABLE)
        found.append("trips", MORE)
        yield found


@pytest.fixture
def other(tmp_path: Path, pool: ExecutorPool) -> Iterator[Lake]:
    with Lake(tmp_path / "other", pool=pool) as found:
        yield found


@pytest.fixture
def bundle(lake: Lake, tmp_path: Path) -> Path:
    return exported(lake, tmp_path / "trips.bundle", "trips")


def exported(lake: Lake, file: Path, *names: str, **options: Any) -> Path:
    request = ExportRequest(names, file, PASSPHRASE, Requester(), "oslo")
    assert list(export_bundle(lake, request, **options))[-1].done
    return file


def imported(lake: Lake, file: Path, passphrase: str = PASSPHRASE, **options: Any) -> BundleReport:
    return list(import_bundle(lake, ImportRequest(file, passphrase, "ann"), ALONE, **options))[-1]


def shards(lake: Lake, name: str) -> list[str]:
    return [shard.object for shard in lake.catalog.manifest(name).snapshot.shards]


def has_nothing(lake: Lake) -> bool:
    return lake.catalog.list() == [] and list(lake.objects) == []


# What is imported


def test_a_bundle_becomes_a_dataset_that_says_where_it_is_from(
    lake: Lake, other: Lake, bundle: Path
) -> None:
    report = imported(other, bundle)

    assert (report.datasets, report.node) == (("trips",), lake.storage.node_key.id)
    assert other.sql("SELECT sum(id), count(*) FROM trips").rows == [(15, 5)]
    assert shards(other, "trips") == shards(lake, "trips")
    snapshot = other.catalog.manifest("trips").snapshot
    assert (snapshot.version, snapshot.parent, snapshot.author) == (1, None, "ann")
    assert snapshot.query == f"import of trips version 2 of node oslo ({report.node})"
    assert other.verify().findings == ()
    other.sql("DELETE FROM trips WHERE id = 1")
    assert lake.sql("SELECT count(*) FROM trips").value == 5


def test_files_that_were_ingested_stay_at_their_node(
    tmp_path: Path, other: Lake, pool: ExecutorPool
) -> None:
    with Lake(tmp_path / "lake", pool=pool, keep_source=True) as lake:
        csv = tmp_path / "t.csv"
        csv.write_text("a,secret\n1,x\n")
        lake.append("t", csv)
        [shard] = lake.catalog.manifest("t").snapshot.shards
        source = shard.source_object
        assert source is not None
        assert source in lake.objects
        with Bundle(exported(lake, tmp_path / "b", "t"), PASSPHRASE) as bundle:
            assert source not in bundle
    imported(other, tmp_path / "b")
    assert other.verify().findings == ()
    assert other.sql("SELECT a FROM t").value == 1


def test_an_import_of_many_datasets_is_one_step(lake: Lake, other: Lake, tmp_path: Path) -> None:
    lake.append("plans", pa.table({"id": [7]}))
    file = exported(lake, tmp_path / "b", "trips", "plans", "TRIPS")
    other.append("PLANS", TABLE)
    before = set(other.objects)

    with pytest.raises(Conflict, match="PLANS"):
        imported(other, file)
    assert [info.name for info in other.catalog.list()] == ["PLANS"]
    assert set(other.objects) == before

    other.delete("plans")
    assert imported(other, file).datasets == ("trips", "plans")
    assert (
        other.sql("SELECT (SELECT count(*) FROM trips) + (SELECT sum(id) FROM plans)").value == 12
    )


def test_an_object_that_is_here_is_read_from_the_bundle_and_not_stored_again(
    lake: Lake, other: Lake, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.append("same", TABLE)
    other.append("same", MORE)
    here = set(shards(other, "same"))
    assert here == set(shards(lake, "trips"))
    read: list[str] = []
    written: list[str] = []
    verified, commit = Bundle.verified, ObjectWriter.commit

    def noted(bundle: Bundle, name: str) -> Iterator[bytes]:
        read.append(name)
        return verified(bundle, name)

    def written_as(writer: ObjectWriter, expected: str | None = None) -> ObjectDigest:
        digest = commit(writer, expected)
        written.append(digest.object)
        return digest

    monkeypatch.setattr(Bundle, "verified", noted)
    monkeypatch.setattr(ObjectWriter, "commit", written_as)
    imported(other, bundle)
    assert set(read) == here
    assert len(written) == 2  # the manifest of the bundle, and that of the new dataset


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tables=st.lists(
        st.lists(st.tuples(st.integers(-(2**60), 2**60), st.text(max_size=8) | st.none())),
        min_size=1,
        max_size=3,
    )
)
def test_random_datasets_round_trip(
    tables: list[list[tuple[int, str | None]]], lake: Lake, other: Lake, tmp_path: Path
) -> None:
    name = f"t{new_id()}"
    for rows in tables:
        text = pa.array([row[1] for row in rows], pa.string())
        number = pa.array([row[0] for row in rows], pa.int64())
        lake.append(name, pa.table({"n": number, "s": text}))
    imported(other, exported(lake, tmp_path / name, name))
    query = f"SELECT n, s FROM {name} ORDER BY n, s"
    assert other.sql(query).rows == lake.sql(query).rows


# What is refused


def test_what_cannot_be_exported_says_why(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "b"
    with pytest.raises(NotFound):
        exported(lake, file, "trips", "nothing")
    with pytest.raises(Denied, match="data folder"):
        exported(lake, lake.folder / "b", "trips")
    with pytest.raises(UsageError, match="folder that exists"):
        exported(lake, tmp_path / "none" / "b", "trips")
    lake.set_policy("trips", [PolicyRule("ann", rows="id = 1"), PolicyRule("eva")])
    with pytest.raises(Unsupported, match="access policy"):
        exported(lake, file, "trips")
    ann = ExportRequest(("trips",), file, PASSPHRASE, Requester("ann", role="reader"))
    with pytest.raises(Denied, match="shows a part"):
        list(export_bundle(lake, ann))
    bob = ExportRequest(("trips",), file, PASSPHRASE, Requester("bob", role="reader"))
    with pytest.raises(NotFound):
        list(export_bundle(lake, bob))
    lake.policies.remove(lake.catalog.get("trips").id)
    assert not file.exists()
    file.write_text("mine")
    with pytest.raises(Conflict, match="there is a file"):
        exported(lake, file, "trips")
    assert file.read_text() == "mine"


def test_an_encrypted_dataset_is_not_exported_and_none_imported_where_new_ones_are_encrypted(
    tmp_path: Path, bundle: Path, pool: ExecutorPool
) -> None:
    secret = "a passphrase of the lake"
    options: dict[str, Any] = {"pool": pool, "passphrase": secret, "encrypt": True}
    with Lake(tmp_path / "sealed", **options) as sealed:
        sealed.append("secret", TABLE)
        with pytest.raises(Unsupported, match="encrypted"):
            exported(sealed, tmp_path / "b", "secret")
        with pytest.raises(Unsupported, match="encrypted"):
            imported(sealed, bundle)
        assert [info.name for info in sealed.catalog.list()] == ["secret"]


def test_a_stopped_export_leaves_no_file(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with pytest.raises(Cancelled):
        exported(lake, folder / "b", "trips", stopped=lambda: True)
    assert list(folder.iterdir()) == []


def test_damage_is_not_exported(lake: Lake, tmp_path: Path) -> None:
    path = lake.objects.place(shards(lake, "trips")[0])
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Corrupt):
        exported(lake, tmp_path / "b", "trips")
    assert not (tmp_path / "b").exists()


def test_another_passphrase_is_not_taken_for_damage(
    lake: Lake, other: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_format, "_key_of", SLOW_KEY_OF)
    with pytest.raises(UsageError, match="12"):
        list(export_bundle(lake, ExportRequest(("trips",), tmp_path / "b", "short", Requester())))
    bundle = exported(lake, tmp_path / "b", "trips")
    with pytest.raises(Denied, match="passphrase"):
        imported(other, bundle, "another passphrase")
    (bundle.parent / "text").write_text("no bundle at all")
    with pytest.raises(BadInput, match="not a bundle"):
        imported(other, bundle.parent / "text")
    assert has_nothing(other)


def test_an_import_needs_room(other: Lake, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other.quotas.set(UserQuota("ann", disk_bytes=100))
    with pytest.raises(StorageFull, match="'ann' may store"):
        imported(other, bundle)
    other.quotas.remove("ann")
    monkeypatch.setattr(other.space, "_quota_bytes", 100)
    with pytest.raises(StorageFull, match="quota"):
        imported(other, bundle)
    monkeypatch.setattr(other.space, "_quota_bytes", None)
    monkeypatch.setattr(other.space, "_reserve_bytes", 1 << 60)
    monkeypatch.setattr("lake.objects.disk_space._SHARE", 1)
    with pytest.raises(StorageFull, match="reserved"):
        imported(other, bundle)
    assert has_nothing(other)


def test_a_stopped_import_leaves_nothing(lake: Lake, other: Lake, bundle: Path) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        imported(other, bundle, stopped=lambda: next(asked))
    assert has_nothing(other)
    work = import_bundle(other, ImportRequest(bundle, PASSPHRASE), ALONE)
    next(work)
    work.close()  # type: ignore[attr-defined]  # a generator, whose client is gone
    assert has_nothing(other)


# Hostile files


def test_a_flipped_bit_anywhere_is_an_error_and_nothing_is_visible(
    lake: Lake, other: Lake, tmp_path: Path
) -> None:
    whole = exported(lake, tmp_path / "b", "trips").read_bytes()
    file = tmp_path / "flipped"
    for place in {*range(160), *range(160, len(whole), 97), len(whole) - 1}:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 8)
        file.write_bytes(flipped)
        with pytest.raises((Corrupt, BadInput)):
            imported(other, file)
        assert has_nothing(other), place


def test_a_bundle_that_was_cut_off_or_rearranged_is_an_error(
    lake: Lake, other: Lake, tmp_path: Path
) -> None:
    chance = Random(1)
    lake.append("big", pa.table({"n": [chance.getrandbits(62) for _ in range(150_000)]}))
    whole = exported(lake, tmp_path / "b", "big").read_bytes()
    chunk, start = 256 * 1024 + 16, 104 + 40
    assert len(whole) > start + 3 * chunk
    first, second = whole[start : start + chunk], whole[start + chunk : start + 2 * chunk]
    rest = whole[start + 2 * chunk :]
    bad = [whole[:size] for size in (0, 7, 8, 103, 104, 143, 144, 160, start + chunk)]
    bad += [whole[: start + 2 * chunk], whole[:-1], whole + b"x"]
    bad += [whole[:start] + second + first + rest, whole[:start] + first + first + rest]
    file = tmp_path / "bad"
    for content in bad:
        file.write_bytes(content)
        with pytest.raises((Corrupt, BadInput)):
            imported(other, file)
        assert has_nothing(other)


class Forged:
    """A bundle of somebody who knows the passphrase, and lies."""

    def __init__(self, lake: Lake, file: Path) -> None:
        self.lake, self.file = lake, file
        info = lake.catalog.get("trips")
        assert info.head is not None
        manifest, version = lake.catalog.adopter.manifest_of(info, info.head)
        self.dataset = BundleDataset(info.id, info.name, info.head, version, manifest)
        names = sorted({manifest, *shards(lake, "trips")})
        self.objects = [(bytes.fromhex(n), b"".join(lake.objects.read(n))) for n in names]
        self.sizes: dict[int, int] = {}
        self.members: dict[str, Any] = {}

    def write(self) -> Path:
        with self.file.open("wb") as sink:
            writer = BundleWriter(sink.write, PASSPHRASE)
            listed = b"".join(
                name + self.sizes.get(place, len(data)).to_bytes(8, "little")
                for place, (name, data) in enumerate(self.objects)
            )
            digest = hashlib.sha256(listed).hexdigest()
            members: dict[str, Any] = {
                "v": 1, "datasets": (self.dataset,), "objects": len(self.objects),
                "digest": digest, "name": "oslo", "created_at": 1.0,
            } | self.members  # fmt: skip
            head = BundleHead(**members)
            if not head.signature:
                head = head.signed(self.lake.storage.node_key)
            document = canonical_json(head.to_json())
            writer.write(len(document).to_bytes(4, "little") + document + listed)
            for _, data in self.objects:
                writer.write(data)
            writer.finish()
        return self.file


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (lambda f: f.sizes.update({0: 1 << 63}), "the list of objects"),
        (lambda f: f.sizes.update({0: 1}), "damaged"),
        (lambda f: f.members.update(objects=10**6), "fits into it"),
        (lambda f: f.members.update(objects=10**7), "the head"),
        (lambda f: f.members.update(objects=1), "another"),
        (lambda f: f.objects.append(f.objects[-1]), "another order"),
        (lambda f: f.objects.reverse(), "another order"),
        (lambda f: f.members.update(digest="0" * 64), "signed"),
        (lambda f: f.members.update(signature="ed25519:00:00"), "the signature"),
        (lambda f: f.members.update(datasets=(f.dataset, f.dataset)), "the head"),
        (lambda f: f.members.update(datasets=()), "the head"),
        (lambda f: f.members.update(v=2), "the head"),
        (lambda f: f.objects.insert(0, (bytes(32), b"")), "1 others"),
        (lambda f: rename(f, name="x" * 200), "name"),
        (lambda f: rename(f, name="CON\0"), "name"),
        (lambda f: rename(f, id="../x"), "the head"),
        (lambda f: rename(f, manifest="../../../etc/passwd"), "found none"),
        (lambda f: rename(f, manifest=f.objects[0][0].hex().upper()), "found none"),
        (lambda f: rename(f, version=7), "another snapshot"),
        (lambda f: rename(f, snapshot=new_id()), "another snapshot"),
        (lambda f: swap(f), "damaged"),
        (lambda f: with_manifest(f, b"[" * 100_000), "expected JSON"),
        (lambda f: with_manifest(f, b"{}"), "expected v 2"),
        (lambda f: with_manifest(f, without_columns(f)), "no columns"),
    ],
)
def test_a_lie_of_who_knows_the_passphrase_is_an_error(
    lie: Any, error: str, lake: Lake, other: Lake, tmp_path: Path
) -> None:
    forged = Forged(lake, tmp_path / "forged")
    lie(forged)
    with pytest.raises(SennitError, match=error):
        imported(other, forged.write())
    assert has_nothing(other)


def rename(forged: Forged, **members: Any) -> None:
    forged.members["datasets"] = (
        BundleDataset(**{
            name: getattr(forged.dataset, name)
            for name in ("id", "name", "snapshot", "version", "manifest")
        } | members),
    )  # fmt: skip


def with_manifest(forged: Forged, data: bytes) -> None:
    """Put another manifest in the place of the right one."""
    name = ObjectHasher().update(data).finish().object
    right = bytes.fromhex(forged.dataset.manifest)
    others = [each for each in forged.objects if each[0] != right]
    forged.objects = sorted([*others, (bytes.fromhex(name), data)])
    rename(forged, manifest=name)


def without_columns(forged: Forged) -> bytes:
    document = json.loads(b"".join(forged.lake.objects.read(forged.dataset.manifest)))
    del document["snapshot"]["signature"]
    document["snapshot"]["schema"]["fields"] = []
    return canonical_json(document)


def swap(forged: Forged) -> None:
    """Put the bytes of one object in the place of another one."""
    (first, data), (second, other) = forged.objects[:2]
    forged.objects[:2] = [(first, other), (second, data)]


def test_the_forger_that_tells_the_truth_is_believed(
    lake: Lake, other: Lake, tmp_path: Path
) -> None:
    imported(other, Forged(lake, tmp_path / "forged").write())
    assert other.sql("SELECT count(*) FROM trips").value == 5


def test_an_object_of_no_dataset_is_refused(lake: Lake, other: Lake, tmp_path: Path) -> None:
    forged = Forged(lake, tmp_path / "forged")
    extra = lake.objects.put_bytes(b"what nobody asked for").object
    forged.objects = sorted([*forged.objects, (bytes.fromhex(extra), b"what nobody asked for")])
    with pytest.raises(Corrupt, match="1 others"):
        imported(other, forged.write())
    assert has_nothing(other)


def test_objects_are_read_a_piece_at_a_time(lake: Lake, other: Lake, tmp_path: Path) -> None:
    """Neither side holds more of an object than a megabyte."""
    data = bytes(range(256)) * 4096 * 5
    name = lake.objects.put_bytes(data + b"end").object
    sizes: list[int] = []
    written: list[int] = []
    file = tmp_path / "b"
    with file.open("wb") as sink:
        writer = BundleWriter(lambda b: written.append(sink.write(b)), PASSPHRASE)
        dataset = BundleDataset(new_id(), "big", new_id(), 1, name)
        head = BundleHead(1, (dataset,), 0, "", "", 1.0)
        writer.start(head, {name: len(data) + 3}, lake.storage.node_key)
        for piece in lake.objects.read(name):
            sizes.append(len(piece))
            writer.write(piece)
        writer.finish()
    with Bundle(file, PASSPHRASE) as bundle:
        found = list(bundle.verified(name))
    assert b"".join(found) == data + b"end"
    assert max(map(len, found)) == max(sizes) == 1 << 20
    assert max(written) == 256 * 1024 + 16
