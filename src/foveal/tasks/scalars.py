"""Scalars for TensorBoard: event files under ``tensorboard/``, a new one each time a run goes on.

They are written with tensorboard's own record writer: ``torch.utils.tensorboard`` does the same and takes seconds to
import.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foveal.tasks.run_folder import writing

NAME = "tensorboard"


class Scalars:
    """Event files of one run. What an earlier sitting wrote from ``step`` on counts no more.

    Nothing is imported or written before the first scalar.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.start = folder / NAME, step
        self._records: Any = None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write values that were measured after ``step`` steps."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._records is None:
            self._open()
        told = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=told)))

    def show(self, step: int, pictures: Mapping[str, Any]) -> None:
        """Write pictures ``(rows, columns, 3)`` of 8 bits."""
        if not pictures:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        from foveal.viz.overlay import png

        if self._records is None:
            self._open()
        told = [
            Summary.Value(
                tag=name,
                image=Summary.Image(
                    height=pixels.shape[0], width=pixels.shape[1], colorspace=3, encoded_image_string=png(pixels)
                ),
            )
            for name, pixels in pictures.items()
        ]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=told)))

    def flush(self) -> None:
        """Let readers see what was written."""
        if self._records is not None:
            with writing(self.folder):
                self._records.flush()

    def close(self) -> None:
        """End the file."""
        if self._records is not None:
            with writing(self.folder):
                self._records.close()
            self._records = None

    def _open(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
            # Readers take the files in the order of their names.
            number = len(list(self.folder.glob("*.tfevents.*")))
            self._records = RecordWriter(open(self.folder / f"events.out.tfevents.{number:06d}", "wb"))  # noqa: SIM115
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=self.start, session_log=start))

    def _write(self, event: Any) -> None:
        with writing(self.folder):
            self._records.write(event.SerializeToString())
