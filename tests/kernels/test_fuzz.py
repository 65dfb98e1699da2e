"""Two hundred of the cases of fuzz.py, and that it finds what is wrong."""

import pytest

from kernels import fuzz
from kernels.native import needs_kernels

pytestmark = needs_kernels


@pytest.mark.parametrize(("operation", "case"), fuzz.cases(200))
def test_random_calls_equal_the_definition(operation, case):
    try:
        fuzz.check(operation, case)
    except fuzz.Refused as refused:
        assert operation != "local", refused


def test_a_wrong_kernel_is_found_and_told_with_the_command_that_repeats_it(monkeypatch):
    right = fuzz.evaluate

    def wrong(*call):
        found = right(*call)
        return [x * 1.01 for x in found] if call[3] == "native" else found

    monkeypatch.setattr(fuzz, "evaluate", wrong)
    repeat = "Repeat with: python tests/kernels/fuzz.py --operation local --case 1"
    with pytest.raises(AssertionError, match=repeat):
        fuzz.check("local", 1)
