"""The gate: candidate records against a pinned baseline, within limits learnt from its seeds."""
