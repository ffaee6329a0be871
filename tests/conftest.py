"""What every test shares: a fixed seed, and the genuine data where a machine has it."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def seed() -> None:
    """Each test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # third-party code under test may use the global state


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of genuine data sets, or a skip that says how to have it."""
    folder = Path(os.environ.get("FLASH_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no genuine data at {folder}; set FLASH_TEST_DATA to the folder that holds it")
    return folder
