"""The networks over slots: a policy that starts as the softmax of the slot score, and a Q twin.

Both read a batch of decisions as raw features and normalise inside (symlog, then LayerNorm behind the first linear
map), so a row of the replay table needs no statistics beside it and an exported policy carries everything in its
weights.

The policy's logits are `(score - best legal score) / prior_temperature + residual`. The residual head's last layer
starts at zero, so at iteration 0 the policy *is* pi_0 and its argmax *is* greedy, exactly: subtracting the best score
before the division gives the best slot the logit 0 and every other slot a negative one (the difference of two distinct
floats never rounds to zero), whereas dividing the raw score could round two neighbouring scores to one logit.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ace_ray.config.errors import ConfigError
from ace_ray.config.learning import PolicySettings

Batch = Mapping[str, Tensor]

# A slot this many nats under the best is out of reach for any sensible budget; the floor keeps KL(pi || pi_0) and its
# gradient finite.
PRIOR_FLOOR = -50.0


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): near-identity for small features, logarithmic for large ones; any shape."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def score_gap(score: Tensor, mask: Tensor) -> Tensor:
    """Slot score minus the best legal score; 0 at illegal slots.

    Args:
        score: [B, K], higher is better.
        mask: [B, K] bool, at least one legal slot a row.

    Returns:
        [B, K], <= 0, exactly 0 only at the best legal slot(s) among legal ones.
    """
    best = score.masked_fill(~mask, -torch.inf).amax(-1, keepdim=True)
    return (score - best).masked_fill(~mask, 0.0)


def prior_logits(score: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Logits of pi_0, the softmax of the slot score over legal slots; -inf at illegal slots. [B, K] -> [B, K]."""
    logits = (score_gap(score, mask) / temperature).clamp_min(PRIOR_FLOOR)
    return logits.masked_fill(~mask, -torch.inf)


class _Block(nn.Module):
    """Pre-norm attention over the slots of one decision, then a small MLP; [B, K, H] -> [B, K, H]."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(hidden)
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.norm_mlp = nn.LayerNorm(hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))

    def forward(self, x: Tensor, attend: Tensor) -> Tensor:
        B, K, H = x.shape
        parts = self.query_key_value(self.norm_attention(x)).view(B, K, 3, self.heads, H // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each [B, heads, K, H / heads]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attend)
        x = x + self.out(mixed.transpose(1, 2).reshape(B, K, H))
        return x + self.mlp(self.norm_mlp(x))


class _Tower(nn.Module):
    """Slot embeddings conditioned on the context and on the other legal slots."""

    def __init__(self, context_features: int, slot_features: int, settings: PolicySettings) -> None:
        super().__init__()
        H = settings.hidden
        if H % settings.heads:
            raise ConfigError(
                f"policy.hidden={H} is not a multiple of policy.heads={settings.heads}", "change one of the two"
            )
        self.temperature = settings.prior_temperature
        self.context = nn.Sequential(nn.Linear(context_features, H), nn.LayerNorm(H), nn.GELU(), nn.Linear(H, 2 * H))
        self.slots = nn.Sequential(nn.Linear(slot_features + 2, H), nn.LayerNorm(H), nn.GELU(), nn.Linear(H, H))
        self.blocks = nn.ModuleList(_Block(H, settings.heads) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(H)

    def forward(self, batch: Batch) -> Tensor:
        """[B, C], [B, K, F], [B, K], [B, K] -> [B, K, H]."""
        mask, score = batch["mask"], batch["score"]
        gap = score_gap(score, mask)
        scores = torch.stack([symlog(gap / self.temperature), symlog(score.masked_fill(~mask, 0.0))], -1)
        features = torch.cat([symlog(batch["slots"]), scores], -1)
        # Empty and illegal slots may hold anything: they are zeroed here and no legal slot attends to them.
        embedded = self.slots(features.masked_fill(~mask.unsqueeze(-1), 0.0))
        scale, shift = self.context(symlog(batch["context"])).unsqueeze(1).chunk(2, -1)  # each [B, 1, H]
        x = embedded * (1.0 + scale) + shift
        attend = mask[:, None, None, :]  # [B, 1, 1, K]
        for block in self.blocks:
            x = block(x, attend)
        return self.norm(x)


class SlotNetwork(nn.Module):
    """The policy: one logit a slot.

    Args:
        context_features: C of the engine spec.
        slot_features: F of the engine spec.
        settings: widths and the prior's temperature; `hidden` must be a multiple of `heads`.
    """

    def __init__(self, context_features: int, slot_features: int, settings: PolicySettings) -> None:
        super().__init__()
        self.temperature = settings.prior_temperature
        self.tower = _Tower(context_features, slot_features, settings)
        self.hidden = nn.Sequential(nn.Linear(settings.hidden, settings.hidden), nn.GELU())
        self.residual = nn.Linear(settings.hidden, 1)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def forward(self, batch: Batch) -> Tensor:
        """Logits over slots.

        Args:
            batch: `context` [B, C], `slots` [B, K, F], `score` [B, K] float32, `mask` [B, K] bool with a legal slot in
                each row.

        Returns:
            [B, K]; -inf at illegal slots.
        """
        residual = self.residual(self.hidden(self.tower(batch))).squeeze(-1)
        return self.prior(batch) + residual

    def prior(self, batch: Batch) -> Tensor:
        """Logits of pi_0; [B, K], -inf at illegal slots."""
        return prior_logits(batch["score"], batch["mask"], self.temperature)


class SlotQ(nn.Module):
    """One action-value head: state value of the pooled legal slots plus an advantage a slot.

    Same arguments as `SlotNetwork`.
    """

    def __init__(self, context_features: int, slot_features: int, settings: PolicySettings) -> None:
        super().__init__()
        H = settings.hidden
        self.tower = _Tower(context_features, slot_features, settings)
        self.value = nn.Sequential(nn.Linear(H, H), nn.GELU(), nn.Linear(H, 1))
        self.advantage = nn.Sequential(nn.Linear(H, H), nn.GELU(), nn.Linear(H, 1))

    def forward(self, batch: Batch) -> Tensor:
        """Q values, finite everywhere (those of illegal slots mean nothing). [B, K]."""
        x = self.tower(batch)
        legal = batch["mask"].unsqueeze(-1).to(x.dtype)
        pooled = (x * legal).sum(1) / legal.sum(1)  # [B, H]
        return self.value(pooled) + self.advantage(x).squeeze(-1)
