//! The standard streams of a container, seen from the shim.

use std::{io, mem::MaybeUninit, ops::ControlFlow, os::fd::OwnedFd};

use rustix::{io::Errno, pipe::PipeFlags};

use crate::{
    log::{Lines, Log},
    time,
    wire::{ContainerSpec, Stdin},
};

/// Output read at once, and how often before others get their turn.
const READ_BYTES: usize = 16 * 1024;
pub(crate) const READS_PER_TURN: usize = 8;

/// What is read after the end at most: what a pipe can hold, see pipe(7), and more than anybody
/// sets. Only a process outside of the container could go on writing.
pub(crate) const READS_AT_END: usize = 1024 * 1024 / READ_BYTES;

/// An output: a pipe, or a terminal.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) pipe: OwnedFd,
    pub(crate) lines: Lines,
}

impl Output {
    /// Reads and logs what there is; breaks at the end of the output.
    pub(crate) fn pump(&mut self, log: &mut Log, reads: usize) -> ControlFlow<()> {
        // Not initialised: memory that is never written costs nothing.
        let mut bytes = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        for _ in 0..reads {
            match rustix::io::read(&self.pipe, &mut bytes) {
                Ok(([], _)) => {
                    self.lines.end(&time::now(), log);
                    return ControlFlow::Break(());
                }
                Ok((bytes, _)) => self.lines.push(bytes, &time::now(), log),
                Err(Errno::INTR) => {}
                // A terminal that nobody has open any more.
                Err(Errno::IO) => {
                    self.lines.end(&time::now(), log);
                    return ControlFlow::Break(());
                }
                // Nothing more for now; a pipe has no other errors.
                Err(_) => break,
            }
        }
        ControlFlow::Continue(())
    }
}

/// A pipe whose reading end does not block.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}

/// The standard input of a container that is not empty, and not a terminal: where it is read, and where
/// written.
pub(crate) fn stdin(spec: &ContainerSpec) -> io::Result<Option<(OwnedFd, OwnedFd)>> {
    match spec.stdin {
        Stdin::Empty => Ok(None),
        Stdin::Open | Stdin::Once if spec.tty => Ok(None),
        Stdin::Open | Stdin::Once => Ok(Some(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)),
    }
}
