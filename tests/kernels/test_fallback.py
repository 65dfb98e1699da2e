"""Without its native code the package works, and says why it is without."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import foveal
from kernels.native import needs_kernels

# A layer and an operation as a user calls them, and why native refuses.
SCRIPT = """
import json, torch, foveal
from foveal.kernels import cpu
q = torch.randn(2, 2, 4, 5, 6, requires_grad=True)
out = foveal.local_attention(q, q, q, kernel_size=3)
out.sum().backward()
torch.testing.assert_close(out, foveal.local_attention(q, q, q, kernel_size=3, backend="reference"))
foveal.LocalAttention(8, 8, kernel_size=3, heads=2)(torch.randn(1, 8, 5, 6)).sum().backward()
foveal.EfficientAttention(8, key_channels=4)(torch.randn(1, 8, 5, 6)).sum().backward()
foveal.ExternalAttention(8, slots=3)(torch.randn(2, 8, 5, 6)).sum().backward()
foveal.ExplicitAttention(8, 8, heads=2)(torch.randn(1, 8, 5, 6)).sum().backward()
try:
    foveal.local_attention(q, q, q, kernel_size=3, backend="native")
except foveal.BackendError as error:
    refused = str(error)
from foveal.cli.info import kernels
told = kernels()
print(json.dumps([cpu.WHY_NOT, cpu.instruction_set(), refused, told["cpu_kernels"], told["backends"]]))
"""


def run(script, **environment):
    command = [sys.executable, "-c", script]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FOVEAL_")}
    return subprocess.run(command, capture_output=True, text=True, env={**kept, "OMP_NUM_THREADS": "1", **environment})


def copy_of_the_package(folder):
    """The installed package without its library; it goes before the installed one."""
    source = Path(foveal.__file__).parent
    shutil.copytree(source, folder / "foveal", ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.cpp", "*.h"))
    return folder / "foveal" / "kernels" / "cpu" / "_native.abi3.so"


def assert_it_works_without(done, why):
    assert done.returncode == 0, done.stderr
    reason, instruction_set, refused, kernels, backends = json.loads(done.stdout.splitlines()[-1])
    assert reason.startswith(why)
    assert instruction_set is None
    assert refused == f"local_attention: backend 'native' cannot run this call: {reason}."
    assert kernels == f"none: {reason}"
    assert backends["local"] == ["triton", "tiled", "windows", "reference"]
    assert not any("native" in names for names in backends.values())


def test_native_code_can_be_switched_off():
    assert_it_works_without(run(SCRIPT, FOVEAL_BACKEND="reference"), "native code is switched off by FOVEAL_BACKEND")


def test_without_a_library_everything_runs_in_pytorch(tmp_path):
    copy_of_the_package(tmp_path)
    done = run(SCRIPT, PYTHONPATH=str(tmp_path))
    assert_it_works_without(done, "the CPU kernels were not built: reinstall foveal where a C++17 compiler and torch")


def test_a_library_that_does_not_load_is_told(tmp_path):
    copy_of_the_package(tmp_path).write_bytes(b"no library at all")
    assert_it_works_without(run(SCRIPT, PYTHONPATH=str(tmp_path)), "the library of CPU kernels does not load: ")


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("FOVEAL_BACKEND", "refrence", "FOVEAL_BACKEND must be reference, got 'refrence'. Unset it for the fastest."),
        ("FOVEAL_CPU_ISA", "sse9", "FOVEAL_CPU_ISA must be portable or avx2 or avx512, got 'sse9'. Unset it"),
    ],
)
def test_an_unknown_value_is_told_in_one_sentence(variable, value, wanted):
    done = run("import sys; from foveal.cli import main; sys.exit(main(['info']))", **{variable: value})
    assert done.returncode == 2
    assert done.stderr.startswith(f"BackendError: kernels: {wanted}")
    assert len(done.stderr.splitlines()) == 1


@needs_kernels
def test_info_tells_the_instruction_set_and_the_backends(capsys):
    from foveal.cli import main
    from foveal.kernels import cpu

    assert main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cpu_kernels"] == cpu.instruction_set()
    assert told["backends"]["local"] == ["native", "triton", "tiled", "windows", "reference"]
    assert main(["info"]) == 0
    assert "local native/triton/tiled/windows/reference" in " ".join(capsys.readouterr().out.split())
