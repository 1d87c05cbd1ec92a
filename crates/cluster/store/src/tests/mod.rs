//! What the store promises, checked from outside.

mod backup;
mod basics;
mod corruption;
mod disk;
mod fixtures;
mod fuzz;
mod model;
mod quick;
