"""ACE on Ray: reinforcement learning and a language model that improve each other on power-grid topology control."""

__version__ = "0.1.0"
