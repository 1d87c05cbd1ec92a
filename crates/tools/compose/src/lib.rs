//! Kubernetes objects, and links to local source, from what people describe their processes in
//! today: a Procfile with its `.env`.
//!
//! Text in, objects out. It reads no file, starts nothing, and does not speak to a cluster.

mod application;
mod dotenv;
mod error;
mod procfile;
mod shell;

pub use application::{Application, Object, from_procfile};
pub use dotenv::Variables;
pub use error::{Error, Problem};
pub use procfile::{Process, Procfile};
