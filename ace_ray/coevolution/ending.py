"""The table that ends a run: the rule agents, the policy as it started and as it is now, on the same scenarios."""

from dataclasses import replace

from ace_ray.coevolution.run_folder import RunFolder
from ace_ray.config.run import RunSettings
from ace_ray.evaluation.evaluate import Extras, evaluate_all
from ace_ray.evaluation.rows import write_parquet
from ace_ray.evaluation.tables import table
from ace_ray.policy import checkpoint

RULE_AGENTS = ("do-nothing", "reconnect", "greedy")


def final_table(settings: RunSettings, folder: RunFolder) -> str:
    """Plays the scenarios of `evaluation.scenarios`, saves table and evaluations, and returns the table as text."""
    first = checkpoint.load_card(checkpoint.find(folder.path, 0))
    last = checkpoint.load_card(checkpoint.find(folder.path))
    names = {f"policy:{folder.path}@{first.version}": f"policy@{first.version}"}
    names[f"policy:{folder.path}@{last.version}"] = f"policy@{last.version}"
    found = evaluate_all(
        [*RULE_AGENTS, *names],
        settings.evaluation.scenarios,
        settings.grid,
        processes=settings.evaluation.processes,
        extras=Extras(scores=folder.evaluation / "scores" if settings.evaluation.scores else None),
    )
    found = [replace(one, agent=names.get(one.agent, one.agent)) for one in found]
    for one in found:
        one.save(folder.evaluation / f"{one.agent}.json")
    write_parquet(found, folder.evaluation / "episodes.parquet")
    pairs = [] if first.version == last.version else [(f"policy@{first.version}", f"policy@{last.version}")]
    result = table(found, reference="greedy", pairs=pairs)
    result.save(folder.evaluation)
    return result.text()
