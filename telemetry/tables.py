"""The Arrow schemas of the ledger's tables.

The record key of a step is `(run, generation, individual, life, step)`; `attempt` is not part of it: it tells
which try at a life wrote the row, so that readers can leave out the rows of a try that the journal never
acknowledged. Lives that were lived together in one instance of a shared world have one attempt.
"""

import pyarrow as pa

STEPS = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("individual", pa.string(), nullable=False),
        pa.field("lineage", pa.string(), nullable=False),
        pa.field("life", pa.int32(), nullable=False),
        pa.field("step", pa.int32(), nullable=False),
        pa.field("attempt", pa.string(), nullable=False),
        pa.field("observation", pa.string(), nullable=False),
        pa.field("legal", pa.list_(pa.string()), nullable=False),
        # Token that stands for each legal action, in their order; empty where the completion is free text.
        pa.field("choice_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("prompt_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("completion_ids", pa.list_(pa.int32()), nullable=False),
        # Log-probability of each completion token under the model at the individual's temperature, before epsilon.
        pa.field("completion_logprobs", pa.list_(pa.float32()), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("parse", pa.string(), nullable=False),
        # Probability of the executed action under the whole behaviour policy, exploration included.
        pa.field("behaviour_probability", pa.float32(), nullable=False),
        pa.field("explored", pa.bool_(), nullable=False),
        pa.field("temperature", pa.float32(), nullable=False),
        pa.field("epsilon", pa.float32(), nullable=False),
        pa.field("sampling_seed", pa.int64(), nullable=False),
        pa.field("energy_before", pa.float32(), nullable=False),
        pa.field("energy_after", pa.float32(), nullable=False),
        # Hidden world state after the step as JSON: recorded for replay, never shown to the agent.
        pa.field("state", pa.string(), nullable=False),
        pa.field("adapter", pa.string(), nullable=True),
        pa.field("engine", pa.string(), nullable=False),
    ]
)
"""One row per step of a life."""

LIVES = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("individual", pa.string(), nullable=False),
        pa.field("lineage", pa.string(), nullable=False),
        pa.field("life", pa.int32(), nullable=False),
        pa.field("attempt", pa.string(), nullable=False),
        pa.field("world", pa.string(), nullable=False),
        pa.field("world_seed", pa.int64(), nullable=False),
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("end", pa.string(), nullable=False),
        pa.field("cause", pa.string(), nullable=False),
        pa.field("energy", pa.float32(), nullable=False),
        pa.field("adapter", pa.string(), nullable=True),
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("completion_tokens", pa.int64(), nullable=False),
        pa.field("started_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("seconds", pa.float32(), nullable=False),
        # Place in the instance, and the turn of the instance at which the life began: 0 in a world for one.
        pa.field("seat", pa.int32(), nullable=False),
        pa.field("born", pa.int32(), nullable=False),
        # Whose descendant it is; null for those who were there at the beginning.
        pa.field("parent_seat", pa.int32(), nullable=True),
        # What the world has to say of the life, as JSON; empty when it says nothing.
        pa.field("result", pa.string(), nullable=False),
    ]
)
"""One row per life."""

TABLES = {"steps": STEPS, "lives": LIVES}

VOLATILE = frozenset({"attempt", "engine", "started_at", "seconds"})
"""Columns that say who did the work and when: two equal runs may differ in them, so digests leave them out."""
