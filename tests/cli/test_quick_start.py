"""A quick start leaves the process as it was."""

import gc
import subprocess
import sys

from flash.cli.quick_start import BLAS, quick_start


def test_it_leaves_nothing_behind() -> None:
    known = sys.modules.get(BLAS)
    with quick_start():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert sys.modules.get(BLAS) is known
    gc.unfreeze()


def test_what_it_spares_can_be_imported_later() -> None:
    script = (
        "import sys\n"
        "from flash.cli.quick_start import quick_start\n"
        "with quick_start():\n"
        "    import numba.np.arraymath\n"
        "assert 'scipy.linalg' not in sys.modules\n"
        "import scipy.linalg.cython_blas\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
