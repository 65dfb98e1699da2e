"""Which evaluation runs in a program that is exported for any height and width."""

import pytest
import torch
from torch.export import Dim

from foveal import BackendError, local_attention
from foveal.functional import efficient, explicit, local

OPEN = ({0: Dim.DYNAMIC, 3: Dim.DYNAMIC, 4: Dim.DYNAMIC},)


class Asks(torch.nn.Module):
    """Runs nothing but a question about a map ``(batch, heads, depth, rows, columns)``."""

    def __init__(self, question, answers):
        super().__init__()
        self.ask = lambda x: answers.append(question(x))

    def forward(self, x):
        self.ask(x)
        return x * 2


def asked(question, space, *, onnx=False):
    """The answer while a map of this size is exported, by a program that takes another one."""
    answers, x, other = [], torch.randn(2, 2, 8, *space), torch.randn(3, 2, 8, 9, 13)
    module = Asks(question, answers).eval()
    if onnx:
        torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=OPEN, verbose=False)
    else:
        program = torch.export.export(module, (x,), dynamic_shapes=OPEN).module()
        torch.testing.assert_close(program(other), 2 * other)
    return answers[0]


@pytest.mark.parametrize(("space", "cheapest"), [((2, 2), "map"), ((20, 30), "context")])
def test_an_exported_program_runs_what_is_cheapest_for_its_example_and_takes_every_size(space, cheapest):
    answer = asked(lambda x: efficient.BACKENDS.cheapest(*[x.double()] * 3), space)
    assert answer == cheapest


def test_no_transform_is_chosen_where_its_length_is_open():
    told = asked(lambda x: explicit.BACKENDS.explain(x, decay="linear", offset=1.0, mask=None), (8, 9))
    assert told["fft"] == "the length of a transform must be a number, not open in an exported program"


def test_onnx_gets_no_operators_of_our_own():
    told = asked(lambda x: local.BACKENDS.explain(x, x, x, kernel_size=[3, 3]), (8, 9), onnx=True)
    assert told["tiled"] == "ONNX has no such operator"
    assert told["native"] != told["windows"]
    assert "operations a sample" in told["windows"]


def test_a_backend_that_onnx_lacks_is_refused_by_name():
    def refusal(x):
        with pytest.raises(BackendError) as caught:
            local_attention(x, x, x, kernel_size=3, backend="tiled")
        return str(caught.value)

    told = asked(refusal, (8, 9), onnx=True)
    assert told == "local_attention: backend 'tiled' cannot run this call: ONNX has no such operator."


def test_windows_are_for_onnx_alone():
    x = torch.randn(1, 1, 2, 5, 5)
    with pytest.raises(BackendError, match="it copies every window, for ONNX, which has no operator for them"):
        local_attention(x, x, x, kernel_size=3, backend="windows")
