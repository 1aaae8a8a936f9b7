"""Settings that must stand before jax is imported."""

import os

# Several forced host devices on few cores can wait for each other for ever with the default number of threads.
os.environ.setdefault('PJRT_NPROC', '16')
