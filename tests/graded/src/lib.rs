//! The load generator graded by its judge: see `tests/graded`. Holds no code of its own.
