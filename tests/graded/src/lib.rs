//! The load generator graded by its judge: see `tests/graded`. Here is only what has tests of its own.

pub mod stolen;
