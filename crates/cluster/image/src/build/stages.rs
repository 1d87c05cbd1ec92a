//! The stages of a Dockerfile: what belongs to which, which ones are needed, and what its first
//! ARGs say.

use std::collections::BTreeMap;

use super::{
    Options, Problem,
    instruction::{Instruction, understand},
    parse,
    words::expand,
};
use crate::Platform;

/// Most stages of one Dockerfile.
const STAGES_MAX: usize = 1000;

/// A Dockerfile, understood.
#[derive(Debug)]
pub(super) struct Stages {
    pub(super) escape: char,
    /// ARGs before the first stage, which FROM sees and stages may ask for.
    pub(super) globals: BTreeMap<String, String>,
    pub(super) all: Vec<Stage>,
    /// Those that are built, in order; the last one is what is wanted.
    pub(super) needed: Vec<usize>,
}

/// One stage.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) line: usize,
    /// What it begins with.
    pub(super) base: Base,
    pub(super) name: Option<String>,
    /// Its instructions with their lines and what stands there.
    pub(super) steps: Vec<(usize, String, Instruction)>,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    Scratch,
    /// An earlier stage.
    Stage(usize),
    Image(String),
}

impl Stages {
    pub(super) fn new(file: parse::File, options: &Options) -> Result<Self, Problem> {
        let escape = file.escape;
        let mut stages =
            Self { escape, globals: BTreeMap::new(), all: Vec::new(), needed: Vec::new() };
        for line in file.lines {
            let (number, text) = (line.number, shown(&line));
            match (understand(line, escape)?, stages.all.last_mut()) {
                (Instruction::From { image, platform, name }, _) => {
                    stages.begin(number, (&image, platform), name)?;
                }
                (Instruction::Arg(arguments), None) => {
                    for (name, default) in arguments {
                        stages.declare(number, name, default, options)?;
                    }
                }
                (_, None) => {
                    return Err(Problem::new(number, "only ARG may come before the first FROM"));
                }
                (instruction, Some(stage)) => stage.steps.push((number, text, instruction)),
            }
        }
        let Some(last) = stages.all.len().checked_sub(1) else {
            return Err(Problem::new(1, "there is no FROM"));
        };
        let target = match &options.target {
            Some(target) => stages
                .find(target, stages.all.len())
                .ok_or_else(|| Problem::new(1, format!("there is no stage `{target}`")))?,
            None => last,
        };
        stages.needed = stages.reach(target);
        Ok(stages)
    }

    /// The stage of that name or number, among the first ones.
    pub(super) fn find(&self, name: &str, before: usize) -> Option<usize> {
        let name = name.to_lowercase();
        let of_name = self.all.iter().take(before).rposition(|it| it.name.as_ref() == Some(&name));
        of_name.or_else(|| name.parse().ok().filter(|it| *it < before))
    }

    /// The names that were given values and are declared nowhere.
    pub(super) fn unused<'a>(&'a self, options: &'a Options) -> impl Iterator<Item = &'a str> {
        let is_declared = |name: &String| {
            let of_stages = self.all.iter().flat_map(|it| &it.steps).any(|(_, _, it)| {
                matches!(it, Instruction::Arg(names) if names.iter().any(|it| it.0 == *name))
            });
            of_stages || self.globals.contains_key(name) || is_of_everybody(name)
        };
        options.arguments.keys().filter(move |it| !is_declared(it)).map(String::as_str)
    }

    fn begin(
        &mut self,
        number: usize,
        (image, platform): (&str, Option<String>),
        name: Option<String>,
    ) -> Result<(), Problem> {
        let host = platforms();
        let globals = self.globals.clone();
        let variables = |name: &str| globals.get(name).or_else(|| host.get(name)).cloned();
        let expanded = |text: &str| {
            expand(text, self.escape, &variables)
                .map_err(|it| Problem::new(number, format!("FROM: {it}")))
        };
        if let Some(platform) = platform {
            let (wanted, ours) = (expanded(&platform)?, Platform::host().to_string());
            if wanted != ours {
                let reason = format!("FROM: --platform={wanted}: this machine is {ours}");
                return Err(Problem::new(number, reason));
            }
        }
        let image = expanded(image)?;
        let base = match self.find(&image, self.all.len()) {
            // A number alone is the name of an image.
            Some(stage) if image.parse::<usize>().is_err() => Base::Stage(stage),
            _ if image == "scratch" => Base::Scratch,
            _ if image.is_empty() => return Err(Problem::new(number, "FROM: its image is empty")),
            _ => Base::Image(image),
        };
        if STAGES_MAX <= self.all.len() {
            return Err(Problem::new(number, format!("more than {STAGES_MAX} stages")));
        }
        self.all.push(Stage { line: number, base, name, steps: Vec::new() });
        Ok(())
    }

    fn declare(
        &mut self,
        number: usize,
        name: String,
        default: Option<String>,
        options: &Options,
    ) -> Result<(), Problem> {
        let host = platforms();
        let variables = |name: &str| self.globals.get(name).or_else(|| host.get(name)).cloned();
        let default = default.map(|it| expand(&it, self.escape, &variables)).transpose();
        let default = default.map_err(|it| Problem::new(number, format!("ARG: {it}")))?;
        if let Some(value) = options.arguments.get(&name).cloned().or(default) {
            self.globals.insert(name, value);
        }
        Ok(())
    }

    /// The stage with all that it needs, in the order of the file.
    fn reach(&self, target: usize) -> Vec<usize> {
        let mut needed = vec![target];
        let mut next = vec![target];
        while let Some(at) = next.pop() {
            let Some(stage) = self.all.get(at) else { continue };
            let copied = stage.steps.iter().filter_map(|(_, _, it)| match it {
                // A name with a variable in it may be that of any stage.
                Instruction::Copy(copy) => copy.from.as_deref(),
                _ => None,
            });
            let mut used: Vec<usize> = copied.filter_map(|it| self.find(it, at)).collect();
            if let Base::Stage(base) = stage.base {
                used.push(base);
            }
            used.retain(|it| !needed.contains(it));
            needed.extend(&used);
            next.extend(used);
        }
        needed.sort_unstable();
        needed.dedup();
        needed
    }
}

/// What every Dockerfile may ask of.
pub(super) fn platforms() -> BTreeMap<String, String> {
    let Platform { architecture, os, variant } = Platform::host();
    let whole = Platform::host().to_string();
    let mut found = BTreeMap::new();
    for of in ["TARGET", "BUILD"] {
        found.insert(format!("{of}PLATFORM"), whole.clone());
        found.insert(format!("{of}OS"), os.clone());
        found.insert(format!("{of}ARCH"), architecture.clone());
        found.insert(format!("{of}VARIANT"), variant.clone().unwrap_or_default());
    }
    found
}

/// ARGs that need no declaration: proxies of the one who builds, which no image keeps.
pub(super) fn is_of_everybody(name: &str) -> bool {
    let lower = name.to_lowercase();
    ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"].contains(&lower.as_str())
}

/// The instruction on one line.
fn shown(line: &parse::Line) -> String {
    let flags = line.flags.iter().map(|(name, value)| match value {
        Some(value) => format!("--{name}={value} "),
        None => format!("--{name} "),
    });
    let flags: String = flags.collect();
    let documents: String = line.documents.iter().map(|it| format!(" <<{}", it.name)).collect();
    let documents = if line.rest.contains("<<") { String::new() } else { documents };
    format!("{} {flags}{}{documents}", line.keyword, line.rest)
}
