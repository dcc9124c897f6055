"""Read the replay of a run with plain pyarrow: who played what, and the results of the refinements."""

import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa


def records(replay: Path, kind: str) -> pa.Table:
    """All records of one kind (state, transition, refinement, edit), as they were written."""
    shards = json.loads((replay / "manifest.json").read_text())["shards"]
    files = [replay / shard["file"] for shard in shards if shard["kind"] == kind]
    return pa.concat_tables([pa.ipc.open_file(file).read_all() for file in files])


def main(run: str) -> dict[str, int]:
    """Prints the decisions by source, the mean reward, and the refinements by their last status."""
    transitions = records(Path(run) / "replay", "transition")
    sources = Counter(transitions["source"].to_pylist())
    print(f"decisions: {dict(sources)}, mean reward {sum(transitions['reward'].to_pylist()) / len(transitions):.3f}")
    statuses: dict[int, str] = {}
    for row in records(Path(run) / "replay", "refinement").select(["id", "round", "status"]).to_pylist():
        if row["round"] == 0:  # round 0 is the refinement itself; the last record of an id holds
            statuses[row["id"]] = row["status"]
    print(f"refinements: {dict(Counter(statuses.values()))}")
    return dict(sources)


if __name__ == "__main__":
    main(sys.argv[1])
