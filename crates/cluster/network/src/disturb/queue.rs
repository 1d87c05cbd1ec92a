//! Frames that wait for their time. Pure, and bounded: what does not fit is lost.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    net::Ipv4Addr,
};

use super::line::Time;

/// Frames that wait: half a second of a gigabit in packets of full size.
const FRAMES_MAX: usize = 1 << 16;
/// Their bytes, for the same reason; what the process may be asked for.
const BYTES_MAX: usize = 64 << 20;

/// A frame that waits. The order is that of sending.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting {
    pub(super) due: Time,
    /// Of frames that are due at once, the one that came first.
    sequence: u64,
    pub(super) to: Ipv4Addr,
    pub(super) bytes: Vec<u8>,
}

/// Frames that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: BinaryHeap<Reverse<Waiting>>,
    bytes: usize,
    sequence: u64,
}

impl Queue {
    /// Has a frame wait. `false`: there is no room, and it is lost.
    pub(super) fn push(&mut self, due: Time, to: Ipv4Addr, bytes: Vec<u8>) -> bool {
        if self.frames.len() >= FRAMES_MAX || self.bytes.saturating_add(bytes.len()) > BYTES_MAX {
            return false;
        }
        self.bytes += bytes.len();
        self.sequence += 1;
        self.frames.push(Reverse(Waiting { due, sequence: self.sequence, to, bytes }));
        true
    }

    /// The next frame whose time has come.
    pub(super) fn pop(&mut self, now: Time) -> Option<Waiting> {
        let first = self.frames.peek_mut()?;
        if first.0.due > now {
            return None;
        }
        let Reverse(waiting) = PeekMut::pop(first);
        self.bytes -= waiting.bytes.len();
        Some(waiting)
    }

    /// When the next is due.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.frames.peek().map(|it| it.0.due)
    }

    /// Frames to those of whom `is_over` says so need wait no longer; they stay in order.
    pub(super) fn release(&mut self, is_over: impl Fn(Ipv4Addr) -> bool) {
        let mut frames = std::mem::take(&mut self.frames).into_sorted_vec();
        // Sorted is from the last to be sent to the first.
        frames.reverse();
        let mut released = 0;
        for Reverse(it) in &mut frames {
            if is_over(it.to) {
                released += 1;
                (it.due, it.sequence) = (Time::ZERO, released);
            }
        }
        self.frames = frames.into();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);
    const B: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 3);

    fn at(milliseconds: u64) -> Time {
        Duration::from_millis(milliseconds)
    }

    fn all(queue: &mut Queue, now: Time) -> Vec<u8> {
        std::iter::from_fn(|| queue.pop(now)).map(|it| it.bytes[0]).collect()
    }

    #[test]
    fn frames_come_when_they_are_due_and_in_order() {
        let mut queue = Queue::default();
        for (due, byte) in [(5, 1), (3, 2), (5, 3), (3, 4), (9, 5)] {
            assert!(queue.push(at(due), A, vec![byte]));
        }
        assert_eq!(queue.next_due(), Some(at(3)));
        assert!(queue.pop(at(2)).is_none());
        assert_eq!(all(&mut queue, at(5)), [2, 4, 1, 3]);
        assert_eq!(queue.next_due(), Some(at(9)));
    }

    #[test]
    fn what_is_over_waits_no_longer() {
        let mut queue = Queue::default();
        for (due, to, byte) in [(5, A, 1), (3, B, 2), (4, A, 3), (4, A, 4)] {
            assert!(queue.push(at(due), to, vec![byte]));
        }
        queue.release(|it| it == A);
        assert_eq!(all(&mut queue, Time::ZERO), [3, 4, 1]);
        assert_eq!(all(&mut queue, at(3)), [2]);
    }

    #[test]
    fn there_is_room_for_so_many_only() {
        let mut queue = Queue::default();
        let room = (0..2 * FRAMES_MAX).take_while(|_| queue.push(at(1), A, vec![0])).count();
        assert_eq!(room, FRAMES_MAX);
        assert_eq!(all(&mut queue, at(1)).len(), FRAMES_MAX);
        let room = (0..100).take_while(|_| queue.push(at(1), A, vec![0; 1 << 20])).count();
        assert_eq!(room, 64);
        assert!(queue.pop(at(1)).is_some());
        assert!(queue.push(at(1), A, vec![0; 1 << 20]));
    }
}
