"""One head for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.cluster.sites import Site, open_site


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("stranger")) as opened:
        yield opened
