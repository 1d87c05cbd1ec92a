//! What the store promises, checked from outside.

mod basics;
