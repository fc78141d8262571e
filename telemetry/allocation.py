"""How processes that hold tensors are to take memory from the system: variables of glibc, set before they start.

By default it gives every thread a heap of its own, in pieces of 64 MiB, and hands what is freed back to the system,
which fills every page with zeros before it hands it out again. A model's activations are freed and taken in every
layer, and the thread that computes gradients is not the one that computes them: a sixth of a small model's training
went into fresh pages, and every heap kept memory that the others lacked. Other allocators take no notice of these.
"""

TENSORS = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}
"""One heap for all threads, of which nothing below a gigabyte is handed back."""
