//! An image while it is made: its configuration and its layers.

use std::{collections::BTreeMap, path::PathBuf};

use super::instruction::{Command, Health};
use crate::{
    Config, ImageConfig, Layer,
    spec::{Empty, Healthcheck, History},
};

/// What runs commands that are text.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Most ports of one range of EXPOSE: all there are.
const PORTS_MAX: u32 = 65_535;

/// An image while it is made.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) image: ImageConfig,
    pub(super) layers: Vec<Layer>,
    /// ARGs that have a value here.
    pub(super) arguments: BTreeMap<String, String>,
    /// This file has a CMD: a later ENTRYPOINT leaves it.
    pub(super) has_cmd: bool,
    /// The layers unpacked, if something has asked for them.
    pub(super) folders: Option<Vec<PathBuf>>,
}

impl State {
    pub(super) fn config(&mut self) -> &mut Config {
        &mut self.image.config
    }

    /// Variables of the image hide ARGs.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let pairs = self.image.config.env.iter().filter_map(|it| it.split_once('='));
        let of_env = pairs.filter(|it| it.0 == name).map(|it| it.1.to_owned()).next_back();
        of_env.or_else(|| self.arguments.get(name).cloned())
    }

    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        let pair = format!("{name}={value}");
        let is_it = |it: &&mut String| it.split_once('=').is_some_and(|it| it.0 == name);
        match self.image.config.env.iter_mut().find(is_it) {
            Some(old) => *old = pair,
            None => self.image.config.env.push(pair),
        }
    }

    /// A CMD of the base goes: it is arguments of another program.
    pub(super) fn set_entrypoint(&mut self, command: &Command) {
        self.image.config.entrypoint = self.words_of(command);
        if !self.has_cmd {
            self.image.config.cmd.clear();
        }
    }

    /// The words of a command; text is the shell's.
    pub(super) fn words_of(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Words(words) => words.clone(),
            Command::Text(text) => {
                let shell = &self.image.config.shell;
                let shell = if shell.is_empty() { &SHELL.map(str::to_owned)[..] } else { shell };
                shell.iter().chain([text]).cloned().collect()
            }
        }
    }

    /// Adds a step to the history, with its layer.
    pub(super) fn note(&mut self, created: String, text: &str, layer: Option<Layer>) {
        self.image.history.push(History {
            created: Some(created),
            created_by: Some(text.to_owned()),
            comment: Some("coracle image build".to_owned()),
            empty_layer: layer.is_none(),
            ..History::default()
        });
        if let Some(layer) = layer {
            self.layers.push(layer);
            self.folders = None;
        }
    }
}

pub(super) fn healthcheck(health: Option<&Health>) -> Healthcheck {
    let Some(health) = health else {
        return Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() };
    };
    let test = match &health.command {
        Command::Words(words) => [&["CMD".to_owned()][..], words].concat(),
        Command::Text(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
    };
    Healthcheck {
        test,
        interval: health.interval,
        timeout: health.timeout,
        start_period: health.start_period,
        start_interval: health.start_interval,
        retries: health.retries,
    }
}

/// A path of the image, from where work is done. Without `.` and `..`.
pub(super) fn absolute(workdir: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let from = if path.starts_with('/') { "" } else { workdir };
    for part in from.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `80`, `80/udp`, `8000-8010/tcp`.
pub(super) fn exposed(text: &str) -> Option<BTreeMap<String, Empty>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return None;
    }
    let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
    let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
    let is_range = 0 < from && from <= to && to <= PORTS_MAX;
    is_range.then(|| (from..=to).map(|it| (format!("{it}/{protocol}"), Empty {})).collect())
}
