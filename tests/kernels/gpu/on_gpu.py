"""Everything that checks the Triton kernels, on an NVIDIA GPU. Run by ``make test-gpu``."""

import os
import subprocess
import sys
from pathlib import Path

import torch

TESTS = Path(__file__).parents[2]
CASES = [str(path) for path in sorted((TESTS / "kernels" / "gpu" / "cases").glob("*.py")) if path.stem != "place"]
CONTRACT = [str(TESTS / "contract" / f"test_{name}.py") for name in ("operations", "layers")]
STEPS = [
    ["-m", "pytest", "-n", "0", *CASES],
    ["-m", "pytest", "-n", "0", *CONTRACT],
    [str(TESTS / "kernels" / "fuzz.py"), "--backend", "triton", "--cases", "2000"],
]


def main() -> int:
    """0 where all steps pass, 1 where one does not, 2 where there is no GPU."""
    if not torch.cuda.is_available():
        sys.stderr.write("test-gpu: there is no NVIDIA GPU that torch can use; run this where there is one.\n")
        return 2
    # The products of torch's own layers are only determined with a workspace of fixed size.
    determined = {"FOVEAL_TEST_DEVICE": "cuda", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = [subprocess.run([sys.executable, *step], cwd=TESTS.parent, env={**kept, **determined}) for step in STEPS]
    return int(any(step.returncode for step in done))


if __name__ == "__main__":
    sys.exit(main())
