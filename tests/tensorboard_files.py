"""Reads TensorBoard's event files by their documented framing, without the package's own reader."""

import struct

from tensorboardX.proto.event_pb2 import Event


def events(path):
    """Yield the events of a file: length (8 bytes), its checksum (4), content, its checksum (4)."""
    content, place = path.read_bytes(), 0
    while place < len(content):
        [size] = struct.unpack_from("<Q", content, place)
        yield Event.FromString(content[place + 12 : place + 12 + size])
        place += 12 + size + 4


def curves(folder):
    """Return every point of every file below a folder: (training, tag, step, value), sorted."""
    return sorted(
        (str(path.parent.relative_to(folder)), value.tag, event.step, value.simple_value)
        for path in folder.rglob("events.out.tfevents.*")
        for event in events(path)
        for value in event.summary.value
    )
