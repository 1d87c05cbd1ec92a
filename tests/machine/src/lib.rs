//! Tests on the real machine: see `tests/machine`. Holds no code of its own.
