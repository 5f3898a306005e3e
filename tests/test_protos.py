"""The contract is well-formed, kept, and the generated code is that of the .proto files."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROTOS = sorted((ROOT / "protos/tokenpace/v1").glob("*.proto"))


def test_generated_code_is_current(tmp_path):
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}"),
            *(f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")),
            *map(str, PROTOS),
        ],
        check=True,
    )
    generated = sorted((tmp_path / "tokenpace/v1").iterdir())
    assert len(generated) == 3 * len(PROTOS)
    stale = [
        file.name
        for file in generated
        if file.read_bytes() != (ROOT / "protos/tokenpace/v1" / file.name).read_bytes()
    ]
    assert not stale, "run `make protos`"


@pytest.mark.parametrize(
    "check", [("lint",), ("breaking", "--against", "protos/released.binpb")], ids=lambda c: c[0]
)
def test_buf_is_content(check):
    buf = Path(sys.executable).with_name("buf")
    result = subprocess.run(
        [buf, *check], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
