"""Train with search as the refiner, then play the policy beside greedy. No language model is started."""

import sys

import ace_ray


def main(*settings: str) -> None:
    """Trains with these settings on top of the defaults; without any, for a quarter of an hour."""
    folder = ace_ray.train("local", "refiner=search", *settings)
    greedy, policy = ace_ray.evaluate(["greedy", f"policy:{folder}"], "validation:2;steps=288")
    for played in (greedy, policy):
        print(f"{played.agent}: {100 * played.survival.mean:.1f} % of the steps survived")


if __name__ == "__main__":
    main(*sys.argv[1:])
