//! Another process that runs the network, disturbs pods, and is killed.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, PipeReader, PipeWriter, Write as _},
    net::Ipv4Addr,
    thread,
};

use coracle_network::{Disturbance, Impairment};
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid,
};

use crate::{sys, world::World};

/// What it says when pods are disturbed.
const READY: &str = "disturbed";

/// Such a process.
pub(crate) struct Holder {
    process: Pid,
    wanted: PipeWriter,
    said: PipeReader,
}

impl Holder {
    /// Makes it, in the namespaces of the caller, which has no second thread yet. A program that is
    /// executed would not have the privileges of an ordinary user's namespace.
    pub(crate) fn new(impairment: Impairment) -> Self {
        let (theirs, wanted) = std::io::pipe().unwrap();
        let (said, mut say) = std::io::pipe().unwrap();
        let Some(process) = sys::fork().unwrap() else {
            drop(wanted);
            // Not to be left behind by a test that fails.
            set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
            let line = BufReader::new(theirs).lines().next().unwrap().unwrap();
            let to: BTreeSet<Ipv4Addr> = line.split(' ').map(|it| it.parse().unwrap()).collect();
            let world = World::start();
            world.disturb(vec![Disturbance { to, from: None, impairment }]);
            writeln!(say, "{READY}").unwrap();
            loop {
                thread::park();
            }
        };
        Self { process, wanted, said }
    }

    /// Has it disturb these pods.
    pub(crate) fn disturb(&mut self, pods: &[Ipv4Addr]) {
        let pods: Vec<String> = pods.iter().map(ToString::to_string).collect();
        writeln!(self.wanted, "{}", pods.join(" ")).unwrap();
        let said = BufReader::new(&self.said).lines().next();
        assert_eq!(said.unwrap().unwrap(), READY);
    }

    /// Returns when it is gone.
    pub(crate) fn kill(self) {
        kill_process(self.process, Signal::KILL).unwrap();
        waitpid(Some(self.process), WaitOptions::empty()).unwrap();
    }
}
