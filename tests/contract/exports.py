"""Exports a module for any batch, height and width, to PyTorch's programs and to ONNX graphs."""

import onnxruntime
import torch
from torch.export import Dim

ANY_SIZE = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)


def torch_program(module, x):
    """What ``torch.export`` makes of it, as a function of the map."""
    return torch.export.export(module, (x,), dynamic_shapes=ANY_SIZE).module()


def onnx_graph(module, x):
    """What onnxruntime makes of its ONNX graph, as a function of the map."""
    program = torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=ANY_SIZE, verbose=False)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), settings)
    (given,) = session.get_inputs()
    return lambda x: torch.from_numpy(session.run(None, {given.name: x.numpy()})[0])
