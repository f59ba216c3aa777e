"""The npm packages as installed: modules that Node imports, types, real calls."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from random import Random

import pytest
from elkyn_server import Served
from npm_packages import (
    NAMES,
    TSC,
    build_archive,
    folder_of,
    gzipped_bytes,
    install,
    pack,
    run,
    run_module,
)

from nodes import RunningNode

pytestmark = pytest.mark.timeout(180)

TYPED = """
import { ElkynClient, ElkynStore, type Json } from '@sennit/elkyn'
import {
  count, Elytra, startUploadWorker, Upload, UploadError, WorkerPool, type UploadResult,
} from '@sennit/elytra'
import { buildSchema, computeStrandMap, StrandView, type StrandSchema } from '@sennit/strand'

const schema: StrandSchema = buildSchema([{ name: 'id', type: 'u32' }])
export const bytes: number = computeStrandMap({
  schema, indexCapacity: 8, heapCapacity: 64,
}).totalBytes
export const pool: WorkerPool = new WorkerPool(startUploadWorker, 2)
export const send = (file: File): Promise<UploadResult> => new Upload(file, { pool }).finished
export const read = async (url: string): Promise<Json> => new ElkynClient(url).get('/a')
export const failed = new UploadError('no', { code: 'usage', status: 400 })
interface Sale { price: number; qty: number; country: string }
const sales = Elytra.remote<Sale>('sales')
export const dear = sales.filter((r) => r.price * r.qty > 500 && r.country !== 'US')
export const rows: Promise<number> = dear.count().collect().then((result) => result.value)
export const first = async (): Promise<string | undefined> => {
  const found = await sales.groupBy('country').agg({ n: count() }).collect()
  return found.rows[0]?.country
}
// @ts-expect-error the rows have no such column
sales.filter((r) => r.cost > 5)
// @ts-expect-error and this one is not selected
sales.select('price').sort('qty')
export const view = (buffer: SharedArrayBuffer) => new StrandView(buffer)
export { ElkynStore }
// @ts-expect-error the declarations know what a schema is
buildSchema(7)
// @ts-expect-error and what a pool is made of
new WorkerPool(startUploadWorker, 'two')
"""

RING = """
import { Worker } from 'node:worker_threads'
import { buildSchema, computeStrandMap, initStrandHeader, StrandView } from '@sennit/strand'

const schema = buildSchema([{ name: 'id', type: 'u32' }, { name: 'text', type: 'utf8' }])
const map = computeStrandMap({ schema, indexCapacity: 16, heapCapacity: 1024 })
const buffer = new SharedArrayBuffer(map.totalBytes)
initStrandHeader(buffer, map)
const view = new StrandView(buffer)
const cursor = view.allocateCursor()
const code = `
  import { workerData } from 'node:worker_threads'
  import { StrandWriter } from '@sennit/strand'
  const writer = new StrandWriter(workerData)
  writer.writeRecordBatch(Array.from({ length: 500 }, (_, id) => ({ id, text: 'r' + id })))
  writer.finalize()`
import { writeFileSync } from 'node:fs'
writeFileSync('writer.mjs', code)
new Worker(new URL('./writer.mjs', import.meta.url), { workerData: buffer })
const texts = []
for (let seq = 0; ;) {
  const count = await view.waitForCommit(seq)
  if (count === seq) break
  for (; seq < count; seq += 1) if (cursor.seek(seq)) texts.push(cursor.getString('text'))
  view.acknowledgeRead(count)
}
console.log(JSON.stringify([texts.length, texts[0], texts.at(-1)]))
"""

UPLOAD = """
import { startUploadWorker, Upload, UploadApi, UploadError, WorkerPool } from '@sennit/elytra'

const [url, token, name] = process.argv.slice(2)
const api = new UploadApi(url, { Authorization: `Bearer ${token}` })
const pool = new WorkerPool(startUploadWorker, 3)
const rows = Array.from({ length: 20_000 }, (_, at) => `${at},port ${at % 7}\\n`)
const file = new File(['berth,port\\n', ...rows], `${name}.csv`)
const upload = new Upload(file, { pool, api, name, partBytes: 65_536 })
const { jobId } = await upload.finished
const denied = new UploadApi(url, { Authorization: 'Bearer snt_wrong' })
const again = await new Upload(file, { pool, api: denied }).finished.catch((error) => error)
pool.close()
console.log(JSON.stringify([
  jobId, upload.snapshot().parts, again instanceof UploadError, again.code,
]))
"""

PIPELINES = """
import { Elytra, JobFailed, SennitError, col, count } from '@sennit/elytra'

const [url, token, dataset] = process.argv.slice(2)
Elytra.configure({ url, token })
const rows = Elytra.remote(dataset)
const ports = await rows
  .filter((r) => r.berth % 2 === 0 && r.port !== 'port 3')
  .groupBy('port')
  .agg({ n: count(), last: col('berth').max() })
  .collect()
const states = new Set()
const total = await rows
  .map((r) => r.berth)
  .reduce((a, b) => a + b, 0)
  .distribute({ onProgress: ({ state }) => states.add(state) })
const seen = []
for await (const row of rows.drop('port').limit(12_000)) seen.push(row.berth)
const failed = await rows.map((r) => r.port.cast('Int64')).collect().catch((error) => error)
const unknown = await Elytra.remote('no_such').count().collect().catch((error) => error)
const stop = new AbortController()
const stopped = rows.collect({ signal: stop.signal }).catch((error) => error.name)
stop.abort()
console.log(JSON.stringify([
  ports.rows.slice(0, 2), total.value, [seen.length, seen.at(-1)], states.has('done'),
  [failed instanceof JobFailed, failed.code], [unknown instanceof SennitError, unknown.code],
  await stopped,
]))
"""

FOLLOWED = """
import { LiveValues } from '@sennit/elkyn/live'
import { Elytra } from '@sennit/elytra'

const [url, token] = process.argv.slice(2)
const found = []
for (const shown of [token, 'snt_wrong']) {
  const polls = []
  const live = new LiveValues(url, { namespace: 'sys', token: shown })
  const elytra = new Elytra({ url, token, live, fetch: (address, init) => {
    if (String(address).includes('?wait=')) polls.push(address)
    return fetch(address, init)
  } })
  const states = []
  const total = await elytra.remote('npm_followed').sum('n').collect({
    onProgress: ({ state }) => states.push(state),
  })
  found.push([total.value, states.at(-1), polls.length > 0 && polls.length])
}
console.log(JSON.stringify(found))
"""

SAME_ANSWERS = """
import { readFileSync } from 'node:fs'
import { coalesce, col, count, Elytra, when } from '@sennit/elytra'

const [url, token, dataset, path] = process.argv.slice(2)
Elytra.configure({ url, token })
const file = new File([readFileSync(path)], 'rows.csv')
const value = col('price').mul(col('qty'))
const pipelines = {
  all: (rows) => rows.sort('at', 'qty', 'price', 'country', 'note').limit(50),
  filtered: (rows) => rows.filter((r) => r.price * r.qty > 500 && r.country !== 'US').count(),
  grouped: (rows) => rows.groupBy('country').agg({
    n: count(), notes: col('note').count(), total: value.sum(), mean: col('price').avg(),
    spread: col('price').stddev(), lo: col('at').min(), hi: col('at').max(),
    kinds: col('note').countDistinct(), whole: col('qty').sum(), average: col('qty').avg(),
  }),
  computed: (rows) => rows.select('qty', {
    size: when(col('qty').gt(7)).then('big').when(col('qty').isNull()).then('none').otherwise('small'),
    half: (r) => r.qty / 2, rest: (r) => r.qty % 3, year: (r) => r.at.year(),
    text: (r) => coalesce(r.note, '-').length(), head: (r) => r.note.substr(1, 2),
    rounded: (r) => r.price.round(1), day: (r) => r.at.cast('Date'),
  }).limit(300),
  top: (rows) => rows.topK(7, value.desc(), 'at').select('price', 'qty', 'at'),
  distinct: (rows) => rows.select('country').distinct(),
  having: (rows) => rows.groupBy('qty').agg({ n: count() }).filter((r) => r.n > 1500).sort('n:desc'),
}
const differences = []
for (const [name, build] of Object.entries(pipelines)) {
  const [here, there] = await Promise.all(
    [Elytra.file(file), Elytra.remote(dataset)].map((rows) => build(rows).collect()),
  )
  const spelled = ({ rows }) => rows.map((row) => JSON.stringify(Object.entries(row).map(
    ([column, value]) => [column, typeof value === 'bigint' ? String(value) : value],
  )))
  const [mine, its] = [spelled(here), spelled(there)]
  const at = mine.findIndex((row, index) => row !== its[index])
  if (mine.length !== its.length || at >= 0)
    differences.push([name, mine.length, its.length, mine[at], its[at]])
}
console.log(JSON.stringify(differences))
"""

TREE = """
import { rmSync } from 'node:fs'
import { ElkynClient, ElkynStore } from '@sennit/elkyn'

const [url, token] = process.argv.slice(2)
const client = new ElkynClient(url, { token })
await client.set('/ports/bergen', { berths: 7 })
const store = new ElkynStore({ mode: 'standalone', path: 'tree' })
await store.set('/copy', await client.get('/ports'))
const copied = store.get('/copy')
await store.close()
client.close()
console.log(JSON.stringify(copied))
"""


EXAMPLES = """
import { writeFileSync } from 'node:fs'
import { countries } from './file.js'
import { sendFromNode } from './node.js'
import { regions } from './opaque.js'
import { dear } from './pipeline.js'

const [url, token] = process.argv.slice(2)
const text = 'price,qty,country,zip\\n100,6,NO,1\\n9,1,US,2\\n200,3,US,3\\n'
writeFileSync('sales.csv', text)
const dataset = await sendFromNode('sales.csv', url, token)
for (;;) {
  const headers = { Authorization: `Bearer ${token}` }
  const jobs = await (await fetch(`${url}/api/jobs`, { headers })).json()
  if (jobs.every(({ finishedAt }) => finishedAt)) break
}
const trips = new File(['code,miles\\nNO-1,5\\nSE-2,6\\nNO-3,7\\n'], 'trips.csv')
console.log(JSON.stringify([
  typeof dataset,
  await dear(url, token),
  [...await countries(new File([text], 'sales.csv'))],
  await regions(trips, ['NO']),
]))
process.exit()
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The packages, packed."""
    folder = tmp_path_factory.mktemp("archives")
    return {name: pack(name, folder) for name in NAMES}


@pytest.fixture(scope="module")
def installed(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project outside the tree with the three archives installed."""
    return install([*archives.values()], tmp_path_factory.mktemp("consumer"))


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path / "data")


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", NAMES)
def test_an_archive_holds_what_its_manifest_names_and_no_sources(name: str, tmp_path: Path) -> None:
    stale = folder_of(name) / "dist" / "removed.js"
    stale.parent.mkdir(exist_ok=True)
    stale.write_text("of a module that was deleted since the last build")
    with tarfile.open(build_archive(name, tmp_path)) as archive:
        files = {member.removeprefix("package/") for member in archive.getnames()}
        manifest = json.loads(archive.extractfile("package/package.json").read())  # type: ignore[union-attr]
    named = set(re.findall(r': "\./([^"]+)"', json.dumps(manifest["exports"])))
    assert named <= files
    assert {file for file in files if not file.startswith("dist/")} == {"package.json", "README.md"}
    assert {file for file in files if re.search(r"(?<!\.d)\.ts$|removed", file)} == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_of_a_package_can_be_imported(installed: Path, name: str) -> None:
    code = f"import * as all from '@sennit/{name}'; console.log(JSON.stringify(Object.keys(all)))"
    exported = run_module(installed, code)
    index = (installed / f"node_modules/@sennit/{name}/dist/index.d.ts").read_text()
    assert len(exported) > 3
    assert all(each in index or "export *" in index for each in exported)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "resolution",
    ["--module node16 --moduleResolution node16", "--module esnext --moduleResolution bundler"],
)
def test_a_strict_consumer_type_checks(installed: Path, resolution: str) -> None:
    (installed / "typed.ts").write_text(TYPED, encoding="utf-8")
    strict = "--strict --noEmit --target es2022 --lib es2024,dom,dom.iterable --types node"
    roots = ("--typeRoots", str(TSC.parents[1] / "@types"))
    run(str(TSC), "typed.ts", *strict.split(), *roots, *resolution.split(), cwd=installed)


@pytest.mark.nightly
def test_the_examples_of_the_readme_run(installed: Path, node: RunningNode) -> None:
    readme = (folder_of("elytra") / "README.md").read_text(encoding="utf-8")
    names = []
    for name, code in re.findall(r"```ts\n// (\w+\.ts)\n(.*?)```", readme, re.DOTALL):
        (installed / name).write_text(code, encoding="utf-8")
        names.append(name)
    strict = "--strict --target es2022 --module nodenext --lib es2024,dom,dom.iterable --types node"
    roots = ("--typeRoots", str(TSC.parents[1] / "@types"))
    run(str(TSC), *names, *strict.split(), *roots, cwd=installed)
    kind, dear, countries, regions = run_module(installed, EXAMPLES, node.url, node.token)
    assert (kind, dear) == ("string", [1200, ["NO", "US"]])
    assert (sorted(countries), regions) == ([["NO", 1], ["US", 2]], ["NO"])


@pytest.mark.nightly
def test_pipelines_with_live_jobs_are_at_most_40_kb(installed: Path) -> None:
    code = """
        import { LiveValues } from '@sennit/elkyn/live'
        import { col, count, Elytra } from '@sennit/elytra'
        window.all = [LiveValues, col, count, Elytra]
    """
    assert gzipped_bytes(installed, code) <= 40_000


def test_a_ring_carries_records_between_threads(installed: Path) -> None:
    assert run_module(installed, RING) == [500, "r0", "r499"]


def test_an_upload_from_node_becomes_a_table(installed: Path, node: RunningNode) -> None:
    job, parts, is_error, code = run_module(installed, UPLOAD, node.url, node.token, "npm_upload")
    assert (parts > 3, is_error, code) == (True, True, "unauthenticated")
    with node.session() as session:
        session.job(job).wait()
        assert session.sql("select count(*), max(berth) from npm_upload").rows == [(20_000, 19_999)]


def test_pipelines_from_node_give_the_answers_of_sql(installed: Path, node: RunningNode) -> None:
    with node.session() as session:
        session.sql("""
            create table npm_ports as
            select i as berth, 'port ' || i % 7 as port from range(20000) r(i)
        """)
        expected = session.sql("""
            select port, count(*), max(berth) from npm_ports
            where berth % 2 = 0 and port <> 'port 3' group by port order by port limit 2
        """).rows
    found = run_module(installed, PIPELINES, node.url, node.token, "npm_ports")
    ports, total, seen, has_progress, failed, unknown, stopped = found
    assert [tuple(row.values()) for row in ports] == expected
    assert (total, seen, has_progress) == (sum(range(20_000)), [12_000, 11_999], True)
    assert (failed, unknown) == ([True, "value-out-of-range"], [True, "not-found"])
    assert stopped == "AbortError"


def test_jobs_are_followed_by_events_of_the_tree(installed: Path, node: RunningNode) -> None:
    with node.session() as session:
        session.sql("create table npm_followed as select i as n from range(1000) r(i)")
    followed, refused = run_module(installed, FOLLOWED, node.url, node.token)
    assert followed == [499_500, "done", 1], "the node is asked once, when the job has ended"
    assert refused[:2] == [499_500, "done"], "without the tree it is asked for the progress"


def test_a_file_in_the_page_gives_the_bits_of_the_node(
    installed: Path, node: RunningNode, tmp_path: Path
) -> None:
    random = Random(11)
    notes = ["", '""', "plain", '"quoted, ""twice"""', '"two\nlines"', "naïve 👍", "x"]
    lines = ["price,qty,country,at,note"]
    for _ in range(20_000):
        price = f"{random.lognormvariate(2, 3):.6g}"
        at = f"2013-{random.randint(1, 12):02}-{random.randint(1, 28):02} 05:{random.randint(0, 59):02}:00"
        row = [price, str(random.randint(0, 12)), random.choice(["NO", "US", "DE", ""]), at]
        if random.random() < 0.05:
            row[1] = ""
        lines.append(",".join([*row, random.choice(notes)]))
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with node.session() as session:
        session.put(path, name="npm_same")
    arguments = (node.url, node.token, "npm_same", str(path))
    assert run_module(installed, SAME_ANSWERS, *arguments) == []


def test_a_client_and_a_store_hold_the_same_tree(installed: Path, served: Served) -> None:
    try:
        assert run_module(installed, TREE, served.url, served.token) == {"bergen": {"berths": 7}}
    finally:
        served.stop()
