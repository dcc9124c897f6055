"""A tiny masked MDP with a misleading slot score, small enough to solve exactly; its rows look like those of the replay
table."""

from dataclasses import dataclass

import numpy as np

STATES, K, GAMMA = 4, 5, 0.9


@dataclass(frozen=True)
class MaskedMDP:
    """Deterministic transitions over `STATES` states and K slots; state 0 slot 1 blacks out with a tempting score.

    Attributes:
        mask, reward, next_state, terminated, steps: each [STATES, K]; `steps` is the k of the semi-MDP.
        score: [STATES, K], what greedy follows: the worst legal action in every state.
    """

    mask: np.ndarray
    reward: np.ndarray
    next_state: np.ndarray
    terminated: np.ndarray
    steps: np.ndarray
    score: np.ndarray

    @classmethod
    def make(cls, seed: int = 0) -> "MaskedMDP":
        rng = np.random.default_rng(seed)
        mask = rng.random((STATES, K)) < 0.7
        mask[:, :2] = True
        mask[STATES - 1] = np.arange(K) == 0  # one state with a single legal slot
        reward = rng.uniform(-1, 1, (STATES, K)).round(2)
        reward[~mask] = 5.0  # what is illegal would be best: a learner that forgets the mask shows it
        terminated = np.zeros((STATES, K), bool)
        terminated[0, 1] = True
        reward[0, 1] = -1.0
        mdp = cls(
            mask,
            reward,
            rng.integers(STATES, size=(STATES, K)),
            terminated,
            rng.integers(1, 4, (STATES, K)),
            np.zeros((STATES, K)),
        )
        q = mdp.optimal_q()
        worst = np.where(mask, q, np.inf).argmin(1)
        score = np.where(mask, -1.0, -1e9)
        score[np.arange(STATES), worst] = -0.99
        return cls(mask, reward, mdp.next_state, terminated, mdp.steps, score.astype(np.float32))

    def optimal_q(self) -> np.ndarray:
        """Value iteration; -inf at illegal slots. [STATES, K]."""
        q = np.zeros((STATES, K))
        for _ in range(500):
            value = np.where(self.mask, q, -np.inf).max(1)
            q = self.reward + GAMMA**self.steps * np.where(self.terminated, 0.0, value[self.next_state])
        return np.where(self.mask, q, -np.inf)

    def states(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Features of states: one-hot context, one-hot slot number (so that slots can be told apart)."""
        B = len(index)
        return {
            "context": np.eye(STATES, dtype=np.float32)[index],
            "slots": np.broadcast_to(np.eye(K, dtype=np.float32), (B, K, K)).copy(),
            "mask": self.mask[index],
            "score": self.score[index],
        }

    def rows(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """n uniformly random legal transitions."""
        s = rng.integers(STATES, size=n)
        a = np.array([rng.choice(np.flatnonzero(self.mask[i])) for i in s])
        then = self.states(self.next_state[s, a])
        then["mask"] = then["mask"] & ~self.terminated[s, a][:, None]  # nothing follows a blackout
        return (
            self.states(s)
            | {"next_" + k: v for k, v in then.items()}
            | {
                "slot": a,
                "reward": self.reward[s, a],
                "discount": GAMMA ** self.steps[s, a],
                "terminated": self.terminated[s, a],
                "weight": np.ones(n),
            }
        )
