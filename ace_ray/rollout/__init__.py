"""Rollout: workers that collect decisions, and refiners that think twice about those that went badly."""
