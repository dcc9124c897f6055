"""The bench of the service measures the tiny model that the service's own tests use."""

from tests.llm_service.conftest import tiny_model

__all__ = ["tiny_model"]
