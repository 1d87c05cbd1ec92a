//! The nursery: a process that is all a new shim has to be, and forks one whenever it is asked.
//!
//! A fork takes a fraction of what executing the binary again does, and its memory stays shared with
//! the nursery until it is written. The nursery ends with whoever started it, and so does every shim
//! that has no pod by then; it has nothing else to do.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use crate::{
    sys::{self, New},
    wire::{self, Decoder, Failure, FailureKind, Reply, Request, SpareSpec},
};

/// A shim that has just begun.
#[derive(Debug)]
pub(crate) struct Newborn {
    /// Its connection to whoever asked for it.
    pub(crate) control: OwnedFd,
    pub(crate) spec: SpareSpec,
    /// What came beside the request: the network namespace of the cluster, if this one is the host's,
    /// or the claim to the ids of a pod.
    pub(crate) beside: Option<OwnedFd>,
}

/// Forks shims until nobody is left to ask for one. Returns in every new one, and, with `None`, in
/// the nursery when it is to end.
pub(crate) fn raise(requests: &OwnedFd) -> io::Result<Option<Newborn>> {
    let mut decoder = Decoder::default();
    while let Some(request) = wire::receive::<Request>(requests, &mut decoder)? {
        let (Request::Spare(spec), Some(control)) = (request, decoder.take_fd()) else {
            return Err(io::Error::other("a nursery is asked for nothing but `spare`"));
        };
        let beside = decoder.take_fd();
        // Of the same parent as the nursery, which waits for both.
        match sys::fork(New::Sibling, None) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Some(Newborn { control, spec, beside })),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                let message = format!("cannot start a process: {error}");
                let failure = Failure { kind: FailureKind::Other, errno, message };
                // Nobody may be there to be told.
                wire::send(control.as_fd(), &Reply::Failed(failure), &[]).ok();
            }
        }
    }
    Ok(None)
}
