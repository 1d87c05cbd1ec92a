//! A client of DNS that costs next to nothing: one question, whose bytes are made once (RFC 1035).

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A question of this program's: its head, with recursion desired and one question.
const HEAD: [u8; 10] = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
/// Kind A, class IN: what follows a name.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];
/// Larger than any answer to it.
const ANSWER_MAX: usize = 4096;

/// Asks one server for the addresses of one name.
pub(super) struct Asker {
    socket: UdpSocket,
    question: Vec<u8>,
    number: u16,
}

impl Asker {
    pub(super) fn new(server: &str, name: &str) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server).with_context(|| format!("ask {server}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, question: question(name)?, number: 0 })
    }

    /// The next question, under a number of its own.
    fn send(&mut self) -> anyhow::Result<()> {
        self.number = self.number.wrapping_add(1);
        let [high, low] = self.number.to_be_bytes();
        if let [first, second, ..] = self.question.as_mut_slice() {
            (*first, *second) = (high, low);
        }
        self.socket.send(&self.question).context("ask")?;
        Ok(())
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> anyhow::Result<&'a [u8]> {
        let length = self.socket.recv(buffer).context("wait for the answer")?;
        buffer.get(..length).context("a long answer")
    }

    /// The addresses that the server says; none, if there are none or no such name.
    pub(super) fn ask(&mut self) -> anyhow::Result<Vec<Ipv4Addr>> {
        self.send()?;
        let mut buffer = [0; ANSWER_MAX];
        let answer = self.receive(&mut buffer)?;
        ensure!(answer.starts_with(&self.number.to_be_bytes()), "the answer to something else");
        Ok(addresses(answer))
    }

    /// Asks `count` times, `window` questions at a time; how long it took.
    #[expect(clippy::disallowed_methods, reason = "measures")]
    pub(super) fn flood(&mut self, window: usize, count: usize) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut buffer = [0; ANSWER_MAX];
        for _ in 0..window {
            self.send()?;
        }
        for answered in 0..count {
            ensure!(!addresses(self.receive(&mut buffer)?).is_empty(), "no address");
            if answered + window < count {
                self.send()?;
            }
        }
        Ok(start.elapsed())
    }
}

fn question(name: &str) -> anyhow::Result<Vec<u8>> {
    let mut question = [&[0, 0], HEAD.as_slice()].concat();
    for label in name.trim_end_matches('.').split('.') {
        question.push(u8::try_from(label.len()).context("a long label")?);
        question.extend(label.as_bytes());
    }
    question.push(0);
    question.extend(ADDRESS);
    Ok(question)
}

/// The data of every record of kind A and class IN. It is found by what stands before it in an answer: a name,
/// mostly two bytes that lead to an earlier one, kind, class, time to live and length.
fn addresses(answer: &[u8]) -> Vec<Ipv4Addr> {
    /// Time to live, length and data.
    const REST: usize = 10;
    let at = |it: usize| answer.get(it).copied().map(usize::from);
    let number = |it: usize| Some(at(it)? << 8 | at(it + 1)?);
    let skip = |mut it: usize| {
        loop {
            match at(it)? {
                0 => return Some(it + 1),
                192.. => return Some(it + 2),
                length => it += 1 + length,
            }
        }
    };
    let mut found = Vec::new();
    let mut read = || {
        let mut it = 12;
        for _ in 0..number(4)? {
            it = skip(it)? + ADDRESS.len();
        }
        for _ in 0..number(6)? {
            it = skip(it)?;
            let length = number(it + 8)?;
            if answer.get(it..it + ADDRESS.len())? == ADDRESS && length == 4 {
                let data: [u8; 4] = *answer.get(it + REST..)?.first_chunk()?;
                found.push(data.into());
            }
            it += REST + length;
        }
        Some(())
    };
    // What is cut off has no further addresses.
    read();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_answered() {
        let mut answer = question("a.bc.").unwrap();
        assert_eq!(answer.get(12..), Some(b"\x01a\x02bc\0\0\x01\0\x01".as_slice()));
        assert!(addresses(&answer).is_empty());
        answer[7] = 3;
        let record = |kind: u8, data: &[u8]| {
            let length = u8::try_from(data.len()).unwrap();
            [&[192, 12, 0, kind, 0, 1, 0, 0, 0, 5, 0, length], data].concat()
        };
        answer.extend(record(1, &[10, 0, 0, 1]));
        answer.extend(record(5, &[1, b'x', 0]));
        answer.extend(record(1, &[10, 0, 0, 2]));
        let found = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        assert_eq!(addresses(&answer), found);
        answer.pop();
        assert_eq!(addresses(&answer), found[..1]);
    }
}
