//! Images of containers: a store by content, and how images come into it and leave it.
//!
//! Nothing here knows Kubernetes, and nothing runs an image. What is in the store was verified when it
//! came: the digest of what is there is what was asked for.

mod assemble;
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

pub use assemble::{Error as AssembleError, date};
pub use digest::{Digest, Error as DigestError, Hasher, HashingReader};
pub use image::{Image, ImageError, Layer};
pub use owners::{IdMap, Nested, Owners, Range};
pub use progress::{Event, Progress};
pub use reference::{Error as ReferenceError, Reason, Reference};
pub use spec::{Compression, Config, Descriptor, ImageConfig, Platform};
pub use store::Store;
