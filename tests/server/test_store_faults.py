import os
import sqlite3
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from server.records import JobRecord
from server.store import Store
from server.store.database import MIGRATIONS, known_revisions
from server.store.errors import StoreFullError, StoreUnavailableError
from server.store.paging import PageRequest
from server.store.tables import metadata


def test_migrations_lead_from_nothing_to_the_tables_of_this_version(tmp_path):
    Store(tmp_path).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'tokenpace.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_heads() == (known_revisions()[-1],)
    engine.dispose()


def test_the_names_of_the_migration_files_are_their_revisions():
    script = ScriptDirectory(str(MIGRATIONS))
    assert sorted(entry.revision for entry in script.walk_revisions()) == known_revisions()
    assert script.get_heads() == [known_revisions()[-1]]


def test_a_store_is_there_again_when_opened_again(tmp_path, environment, point):
    with Store(tmp_path) as store:
        store.measurements.append([point()], device="cpu", environment=environment)
    with Store(tmp_path) as store:
        assert store.measurements.of("cpu", environment.fingerprint) == (point(),)


def test_committed_rows_survive_a_kill(tmp_path, environment):
    program = """
import os, pathlib, signal, sys
from model.measurement import Distribution, Measurement
from model.precision import Precision
from profiler.interface import Environment
from server.store import Store
store = Store(pathlib.Path(sys.argv[1]))
spread = Distribution(median=1.0, p10=1.0, p90=1.0, samples=5)
point = Measurement(kind="linear", precision=Precision.FP32, engine="torch", shape={},
                    latency_ms=spread, group="g")
environment = Environment(device_name="a CPU", device_kind="cpu")
for _ in range(25):
    store.measurements.append([point], device="cpu", environment=environment)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], check=False)
    assert done.returncode == -9
    with Store(tmp_path) as store:
        assert store.measurements.page(PageRequest()).total_size == 25


def test_two_daemons_cannot_share_a_folder(tmp_path):
    with (
        Store(tmp_path),
        pytest.raises(StoreUnavailableError, match=rf"process {os.getpid()}.*--data-dir"),
    ):
        Store(tmp_path)
    Store(tmp_path).close()


@pytest.mark.parametrize("damage", ["text", "head", "middle", "cut"])
def test_a_damaged_file_is_told_at_the_start(tmp_path, environment, point, damage):
    file = tmp_path / "tokenpace.db"
    with Store(tmp_path) as store:
        store.measurements.append(
            [point(m) for m in range(500)], device="cpu", environment=environment
        )
    content = bytearray(file.read_bytes())
    if damage == "text":
        content = bytearray(b"this is no database\n" * 500)
    elif damage == "head":
        content[:100] = bytes(100)
    elif damage == "middle":
        content[8192 : len(content) // 2] = b"\xa5" * (len(content) // 2 - 8192)
    else:
        del content[len(content) // 2 :]
    file.write_bytes(content)
    with pytest.raises(StoreUnavailableError, match=r"is damaged .*move it away") as caught:
        Store(tmp_path)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == content
    file.unlink()
    Store(tmp_path).close()  # the folder is not held any more


def test_a_store_of_a_newer_version_is_left_alone(tmp_path):
    Store(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "tokenpace.db")
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreUnavailableError, match=r"newer tokenpace .*9999.*upgrade"):
        Store(tmp_path)


def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match=r"cannot be written .*--data-dir"):
        Store(tmp_path / "file" / "folder")
    (tmp_path / "folder" / "tokenpace.db").mkdir(parents=True)
    with pytest.raises(StoreUnavailableError, match="cannot be used"):
        Store(tmp_path / "folder")


@pytest.mark.parametrize("url", ["no url", "nodb://x", "oracle://x"])
def test_a_bad_database_url_is_told_at_the_start(tmp_path, url):
    with pytest.raises(StoreUnavailableError, match="database URL cannot be used"):
        Store(tmp_path, url)


def test_a_full_store_refuses_rows_and_loses_none(tmp_path, environment, point, at):
    with Store(tmp_path, max_bytes=256 << 10) as store:
        job = JobRecord(id="job", device="local", budget_s=1.0, create_time=at())
        store.jobs.add(job)
        stored = 0
        with pytest.raises(StoreFullError, match=r"is full.*make room"):
            while stored < 100_000:
                store.measurements.append(
                    [point(m) for m in range(20)],
                    device="cpu",
                    environment=environment,
                    job_id="job",
                )
                stored += 20
        assert 0 < stored == store.measurements.page(PageRequest()).total_size
        assert store.jobs.get("job").measurement_count == stored
    with Store(tmp_path) as store:  # more room: it goes on
        store.measurements.append([point()], device="cpu", environment=environment)
        assert store.measurements.page(PageRequest()).total_size == stored + 1


def test_no_room_for_the_tables_is_told_at_the_start(tmp_path):
    with pytest.raises(StoreFullError, match="is full"):
        Store(tmp_path, max_bytes=16 << 10)
