//! Images of containers: a store by content, and how images come into it and leave it.
//!
//! Nothing here knows Kubernetes, and nothing runs an image. What is in the store was verified when it
//! came: the digest of what is there is what was asked for.

mod assemble;
pub mod build;
mod copy;
mod digest;
mod image;
pub mod load;
mod outgoing;
mod owners;
pub mod pack;
mod progress;
mod reference;
pub mod registry;
pub mod remote;
pub mod spec;
pub mod store;
pub mod tarball;
pub mod unpack;
pub mod worker;

pub use assemble::{Error as AssembleError, date};
pub use digest::{Digest, Error as DigestError, Hasher, HashingReader};
pub use image::{Image, ImageError, Layer};
pub use owners::{IdMap, Nested, Owners, Range};
pub use progress::{Bytes, Event, Progress};
pub use reference::{Error as ReferenceError, Reason, Reference};
pub use spec::{Compression, Config, Descriptor, ImageConfig, Platform};
pub use store::Store;

/// The annotation, among the store's names, of an image that came from a registry under that name: its
/// value is empty. What is without was made or loaded here, and no registry has a newer one.
pub const ANNOTATION_PULLED: &str = "dev.coracle.image.pulled";
