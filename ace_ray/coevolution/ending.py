"""The table that ends a run: the rule agents, the policy as it started and as it is now, on the same scenarios."""

from ace_ray.agents.registry import SavedPolicy
from ace_ray.coevolution.run_folder import RunFolder
from ace_ray.config.run import RunSettings
from ace_ray.evaluation.evaluate import Extras, evaluate_all
from ace_ray.evaluation.rows import write_parquet
from ace_ray.evaluation.tables import table
from ace_ray.policy import checkpoint

RULE_AGENTS = ("do-nothing", "reconnect", "greedy")


def final_table(settings: RunSettings, folder: RunFolder) -> str:
    """Plays the scenarios of `evaluation.scenarios`, saves table and evaluations, and returns the table as text."""
    saved = [checkpoint.find(folder.path, version) for version in (0, None)]
    names = {at: f"policy@{checkpoint.load_card(at).version}" for at in saved}  # one where there was no update
    policies = [SavedPolicy(at, name) for at, name in names.items()]
    found = evaluate_all(
        [*RULE_AGENTS, *policies],
        settings.evaluation.scenarios,
        settings.grid,
        processes=settings.evaluation.processes,
        extras=Extras(scores=folder.evaluation / "scores" if settings.evaluation.scores else None),
    )
    for one in found:
        one.save(folder.evaluation / f"{one.agent}.json")
    write_parquet(found, folder.evaluation / "episodes.parquet")
    pairs = [(policies[0].name, policies[1].name)] if len(policies) == 2 else []
    result = table(found, reference="greedy", pairs=pairs)
    result.save(folder.evaluation)
    return result.text()
