"""Canonical bytes, signatures, sealing, Merkle proofs and checkpoints: pure functions, what an auditor installs."""
