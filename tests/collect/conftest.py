from __future__ import annotations

import pytest
from collect_cases import Collections


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Collections:
    return Collections(tmp_path_factory.mktemp("collections"))
