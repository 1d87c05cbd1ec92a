//! Kustomizations, as `kubectl kustomize` builds them: files in, objects out.
//!
//! It reads files only through [`Files`], knows the types of Kubernetes only through [`Schema`],
//! and speaks to no cluster and no network. What it does not do is an error, never left out.

mod build;
mod edit;
mod error;
mod files;
mod generate;
mod kustomization;
mod merge;
mod order;
mod patch;
mod path;
mod references;
mod replace;
mod resource;
mod select;
mod specs;

pub use build::{Built, build};
pub use error::Error;
pub use files::{FILE_BYTES_MAX, Files, NAMES, find, join};
pub use merge::{Field, Schema};

#[cfg(test)]
mod tests;
