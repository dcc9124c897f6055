"""The client of a command: which model the settings name, checked before anything slow, and opened."""

from llm_service.client import Client, LocalClient
from llm_service.endpoint import EndpointClient, check_endpoint
from llm_service.preflight import check_memory, check_model
from llm_service.settings import ServiceSettings


def check(settings: ServiceSettings) -> None:
    """What can be known before a client is opened; takes a second at most and sends nothing.

    Raises:
        ModelError: the endpoint's settings are incomplete, or the model cannot be served on this machine.
    """
    if settings.endpoint.url:
        check_endpoint(settings)
    else:
        check_memory(settings.engine, check_model(settings.engine))


def open_client(settings: ServiceSettings) -> Client:
    """A client for a command: of the endpoint where the settings name one, else of an engine in this process, which is
    served with the versions that ship with its model.

    Raises:
        ModelError: the endpoint's settings are incomplete, or the engine does not start.
    """
    if settings.endpoint.url:
        return EndpointClient(settings)
    return LocalClient(settings.engine, settings.engine.shipped(), settings)
