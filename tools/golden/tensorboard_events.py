"""events.tfevents: an event file as TensorBoard's own library writes it. And the other way round: event files of a run, as it reads them.

record OUT (tests/golden): with TensorBoard's messages and record writer, wall times 1000, 1001, ...: the version; a start of a session
with step 3; epoch 3, value i of results.csv is i + 1/8; epoch 4 without the series of a validation, value i is 1 / (i + 3) as f32.
compare RUN: EventAccumulator's scalars of a run folder beside its results.csv: the same names, and for every epoch one value, equal
to six digits, on which steps that were run again leave no trace. pip install tensorboard==2.21.0
"""

import csv
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

COLUMNS = (
    "epoch,time,train/box_loss,train/seg_loss,train/cls_loss,train/dfl_loss,metrics/precision(B),metrics/recall(B),metrics/mAP50(B),"
    "metrics/mAP50-95(B),metrics/precision(M),metrics/recall(M),metrics/mAP50(M),metrics/mAP50-95(M),val/box_loss,val/seg_loss,"
    "val/cls_loss,val/dfl_loss,lr/pg0,lr/pg1,lr/pg2"
).split(",")


def scalars(values):
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in values.items()])


def record(out):
    whole = {name: i + 0.125 for i, name in enumerate(COLUMNS) if i > 0}
    part = {name: 1 / (i + 3) for i, name in enumerate(COLUMNS) if i > 0 and not name.startswith(("val/", "metrics/"))}
    events = [
        event_pb2.Event(wall_time=1000, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=1001, step=3, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START)),
        event_pb2.Event(wall_time=1002, step=3, summary=scalars(whole)),
        event_pb2.Event(wall_time=1003, step=4, summary=scalars(part)),
    ]
    with open(out / "events.tfevents", "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()


def compare(run):
    rows = [{k.strip(): float(v) for k, v in row.items()} for row in csv.DictReader(open(run / "results.csv"))]
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    names = events.Tags()["scalars"]
    assert set(names) == set(rows[0]) - {"epoch"}, sorted(set(names) ^ set(rows[0]))
    values = 0
    for name in names:
        series = {e.step: e.value for e in events.Scalars(name)}
        assert len(series) == len(events.Scalars(name)), f"{name}: a step stands twice"
        expected = {int(row["epoch"]): row[name] for row in rows}
        assert set(series) == set(expected), (name, sorted(series), sorted(expected))
        for epoch, value in expected.items():
            assert abs(series[epoch] - value) <= 6e-6 * abs(value), (name, epoch, series[epoch], value)
            values += 1
    files = sorted(p.name for p in run.glob("events.out.tfevents.*"))
    print(f"{len(names)} series, {len(rows)} epochs, {values} values the same, in {len(files)} files")


if __name__ == "__main__":
    {"record": record, "compare": compare}[sys.argv[1]](pathlib.Path(sys.argv[2]))
