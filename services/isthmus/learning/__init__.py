"""The algorithm: windows from drives, the forecaster, its training and its figures.

A training gives the same bytes on every machine whose processors round alike, however many cores it has: XLA's
threads on a processor are one. With more of them it cuts a product of large matrices into as many pieces, and adds up
in another order. A step is too short for a second thread to bring anything; more cores are used by more actors.

It stands here because this is run before any module that imports jax. XLA reads it when it computes for the first
time, so jax may have been imported before, but must not have computed. On GPUs it changes nothing.
"""

import os

os.environ["PJRT_NPROC"] = "1"
