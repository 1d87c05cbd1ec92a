//! How far a transfer is, told to whoever shows it.

/// What happens to a part of an image: a layer, a configuration, a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The part is here already.
    Present {
        /// Its digest, or its path in an archive.
        part: String,
    },
    /// So much of it has been transferred, counting what was there from an earlier try.
    Advanced {
        /// Its digest, or its path in an archive.
        part: String,
        /// Bytes until now.
        done: u64,
        /// Bytes in all, where that is known.
        total: Option<u64>,
    },
    /// The part is here, verified.
    Finished {
        /// Its digest, or its path in an archive.
        part: String,
    },
    /// The connection broke or was refused, and is tried again.
    Retried {
        /// Its digest.
        part: String,
        /// Why.
        reason: String,
    },
}

/// Takes events. Called often, from any thread: be quick.
pub type Progress<'a> = &'a (dyn Fn(Event) + Send + Sync);
