"""Compile the loops of the linear backbone and keep them in NUMBA_CACHE_DIR, with no model at hand.

They are compiled once for weights in float32 and once for weights in 8 bits.
"""

import numpy as np
import pyarrow as pa

from flash.text.classification.backbones.linear.model import Linear

for kind in (np.float32, np.int8):
    backbone = Linear(1)
    backbone.load_arrays({**backbone.arrays(), "weight": np.zeros((0, 1), kind)})
    backbone.logits(pa.array(["A text."], pa.large_string()))
