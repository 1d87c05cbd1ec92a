//! Compiles the steps of a scenario: sequences, loops, choices, thinking. Requests are compiled by
//! `request`.
//!
//! What it finds before a run need not be handled in one: no user ever uses a variable that is not
//! set, goes round without doing anything, or has a step that nobody reaches.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    data::Table,
    document::{Node, Value as Yaml},
    error::{Error, did_you_mean},
    program::{Binding, Instruction, Program, Slot, Step, Think},
    request::{self, Common},
    template::{Named, Names, Value},
};
use crate::plan::StepId;

/// How deep steps may be inside each other.
const NESTING_MAX: usize = 16;
/// How often a loop may go round that has an end.
const ROUNDS_MAX: u64 = 1_000_000_000;
/// Greatest weight of a branch.
const WEIGHT_MAX: f64 = 1e9;
/// What is said of a step that is none.
const WHAT_IS_A_STEP: &str =
    "a step is a request (`get: /path`), `think`, `choose`, `loop` or `leave`";
/// Methods that a request can be written by.
pub(super) const METHODS: [&str; 7] = ["get", "post", "put", "patch", "delete", "head", "options"];

/// A scenario while it is compiled.
pub(super) struct Compiler<'a> {
    pub(super) common: &'a Common<'a>,
    pub(super) program: Program,
    /// Variables that are set by now on every way to here.
    defined: BTreeSet<String>,
    /// Lines where variables are set at all.
    extracted: BTreeMap<String, u64>,
    /// Whether a user has done anything by now, on every way to here.
    acted: bool,
    depth: usize,
}

/// Whether a user comes out at the end of some steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Reached,
    Never,
}

impl<'a> Compiler<'a> {
    /// Compiles the steps of a scenario.
    pub(super) fn compile(common: &'a Common<'a>, steps: &Node) -> Result<Program, Error> {
        let mut compiler = Self {
            common,
            program: Program::default(),
            defined: BTreeSet::new(),
            extracted: BTreeMap::new(),
            acted: false,
            depth: 0,
        };
        find_extractions(steps, &mut compiler.extracted);
        compiler.sequence(steps)?;
        let mut program = compiler.program;
        if program.requests.is_empty() {
            return Err(steps.wrong("no request is ever sent"));
        }
        for binding in &program.bindings {
            for (column, slot) in &binding.columns {
                if program.slots.get(*slot).is_some_and(|it| it.in_header) {
                    binding.table.check_header(*column)?;
                }
            }
        }
        // A user that sends one request and leaves has no use for cookies.
        let again = program.requests.len() > 1 || program.counters > 0;
        let follows = program.requests.iter().any(|it| it.redirects > 0);
        program.cookies = common.cookies && (again || follows);
        for step in &mut program.requests {
            step.base.keep = request::keep(step, program.cookies);
        }
        Ok(program)
    }

    fn sequence(&mut self, node: &Node) -> Result<End, Error> {
        let steps = node.list("a list of steps")?;
        if steps.is_empty() {
            return Err(node.wrong("no steps"));
        }
        if self.depth == NESTING_MAX {
            return Err(node.wrong(format!("steps are more than {NESTING_MAX} deep")));
        }
        self.depth += 1;
        let mut end = End::Reached;
        for step in steps {
            if end == End::Never {
                return Err(step.wrong("unreachable: nobody comes out of the step before it"));
            }
            end = self.step(step)?;
        }
        self.depth -= 1;
        Ok(end)
    }

    fn step(&mut self, node: &Node) -> Result<End, Error> {
        match &node.value {
            Yaml::Text(text) if text == "leave" => {
                if !self.acted {
                    return Err(node.wrong("a user would leave without having done anything"));
                }
                self.program.instructions.push(Instruction::Leave);
                Ok(End::Never)
            }
            Yaml::Text(text) => {
                request::compile_line(self, node, text)?;
                self.acted = true;
                Ok(End::Reached)
            }
            Yaml::Map(entries) => {
                let has = |name: &str| entries.iter().any(|(key, _)| key == name);
                if has("think") {
                    self.think(node)
                } else if has("choose") {
                    self.choose(node)
                } else if has("loop") {
                    self.repeat(node)
                } else if has("method") || METHODS.iter().any(|it| has(it)) {
                    request::compile(self, node)?;
                    self.acted = true;
                    Ok(End::Reached)
                } else {
                    let known = ["think", "choose", "loop", "method"].into_iter().chain(METHODS);
                    let known: Vec<&str> = known.collect();
                    let misspelt = entries.iter().find_map(|(key, node)| {
                        let hint = did_you_mean(key, known.iter().copied());
                        (!hint.is_empty()).then(|| node.wrong(format!("unknown key{hint}")))
                    });
                    Err(misspelt.unwrap_or_else(|| node.wrong(WHAT_IS_A_STEP)))
                }
            }
            Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::List(_) => {
                Err(node.wrong(WHAT_IS_A_STEP))
            }
        }
    }

    fn think(&mut self, node: &Node) -> Result<End, Error> {
        let mut fields = node.fields()?;
        let think = fields.require("think")?;
        let long = |duration: Duration| match duration {
            Duration::ZERO => Err(think.wrong("must be longer than 0")),
            duration => Ok(duration),
        };
        let think = if let Yaml::Map(_) = think.value {
            let mut inside = think.fields()?;
            let mean = inside.take("mean").map(Node::duration).transpose()?;
            let from = inside.take("from").map(Node::duration).transpose()?;
            let to = inside.take("to").map(Node::duration).transpose()?;
            inside.finish()?;
            match (mean, from, to) {
                (Some(mean), None, None) => Think::Exponential(long(mean)?),
                (None, from, Some(to)) if from.unwrap_or_default() <= to => {
                    Think::Uniform(from.unwrap_or_default(), long(to)?)
                }
                (None, Some(_), Some(_)) => {
                    return Err(think.wrong("`from` is longer than `to`"));
                }
                _ => return Err(think.wrong("write `2s`, `{from: 1s, to: 3s}` or `{mean: 2s}`")),
            }
        } else {
            Think::Constant(long(think.duration()?)?)
        };
        fields.finish()?;
        self.program.instructions.push(Instruction::Think(think));
        self.acted = true;
        Ok(End::Reached)
    }

    fn choose(&mut self, node: &Node) -> Result<End, Error> {
        let mut fields = node.fields()?;
        let branches = fields.require("choose")?;
        fields.finish()?;
        let items = branches.list("a list of branches")?;
        if items.is_empty() {
            return Err(branches.wrong("nothing to choose from"));
        }
        let choice = self.program.instructions.len();
        self.program.instructions.push(Instruction::Choose(Vec::new()));
        let (before, acted) = (self.defined.clone(), self.acted);
        let (mut table, mut jumps) = (Vec::new(), Vec::new());
        // What holds after every branch that ends here.
        let mut after: Option<(BTreeSet<String>, bool)> = None;
        for item in items {
            (self.defined, self.acted) = (before.clone(), acted);
            let weight = weight(item)?;
            table.push((weight, self.program.instructions.len()));
            if self.branch(item)? == End::Never {
                continue;
            }
            jumps.push(self.program.instructions.len());
            self.program.instructions.push(Instruction::Jump(0));
            after = Some(match after {
                None => (self.defined.clone(), self.acted),
                Some((defined, acted)) => {
                    (defined.intersection(&self.defined).cloned().collect(), acted && self.acted)
                }
            });
        }
        let end = self.program.instructions.len();
        for jump in jumps {
            self.replace(jump, Instruction::Jump(end));
        }
        self.replace(choice, Instruction::Choose(table));
        match after {
            Some((defined, acted)) => {
                (self.defined, self.acted) = (defined, acted);
                Ok(End::Reached)
            }
            None => Ok(End::Never),
        }
    }

    /// A branch of a choice: a step with a weight, or several below `steps`.
    fn branch(&mut self, node: &Node) -> Result<End, Error> {
        match &node.value {
            Yaml::Map(entries) => {
                let has = |name: &str| entries.iter().any(|(key, _)| key == name);
                if has("steps") && !has("loop") {
                    let mut fields = node.fields()?;
                    fields.take("weight");
                    let steps = fields.require("steps")?;
                    fields.finish()?;
                    return self.sequence(steps);
                }
                let rest: Vec<_> =
                    entries.iter().filter(|(key, _)| key != "weight").cloned().collect();
                self.step(&Node { value: Yaml::Map(rest), ..node.clone() })
            }
            _ => self.step(node),
        }
    }

    fn repeat(&mut self, node: &Node) -> Result<End, Error> {
        let mut fields = node.fields()?;
        let rounds = fields.require("loop")?;
        let steps = fields.require("steps")?;
        fields.finish()?;
        let start = self.program.instructions.len();
        if matches!(&rounds.value, Yaml::Text(text) if text == "forever") {
            // Counted as a loop: what is inside comes more than once.
            self.program.counters += 1;
            if self.sequence(steps)? == End::Reached {
                self.program.instructions.push(Instruction::Jump(start));
            }
            return Ok(End::Never);
        }
        let (least, most) = if let Yaml::Map(_) = rounds.value {
            let mut inside = rounds.fields()?;
            let least = inside.require("from")?.whole(0, ROUNDS_MAX)?;
            let most = inside.require("to")?.whole(1, ROUNDS_MAX)?;
            inside.finish()?;
            if least > most {
                return Err(rounds.wrong("`from` is more than `to`"));
            }
            (least, most)
        } else if let Yaml::Text(text) = &rounds.value {
            let what = format!("`{text}` is neither a number nor `forever`");
            return Err(rounds.wrong(what));
        } else {
            let rounds = rounds.whole(1, ROUNDS_MAX)?;
            (rounds, rounds)
        };
        let counter = self.program.counters;
        self.program.counters += 1;
        let begin = start;
        self.program.instructions.push(Instruction::Jump(0));
        let before = (self.defined.clone(), self.acted);
        let inside = self.sequence(steps)?;
        if inside == End::Reached {
            let again = Instruction::Again { counter, start: begin + 1 };
            self.program.instructions.push(again);
        }
        let end = self.program.instructions.len();
        self.replace(begin, Instruction::Begin { counter, least, most, end });
        if least == 0 {
            (self.defined, self.acted) = before;
            return Ok(End::Reached);
        }
        Ok(inside)
    }

    fn replace(&mut self, position: usize, instruction: Instruction) {
        if let Some(place) = self.program.instructions.get_mut(position) {
            *place = instruction;
        }
    }

    /// Adds a request.
    pub(super) fn send(&mut self, step: Step) {
        self.program.instructions.push(Instruction::Send(self.program.requests.len()));
        self.program.requests.push(step);
    }

    /// The step of this name; steps of one name are measured together.
    pub(super) fn step_id(&mut self, name: &str) -> StepId {
        let steps = &mut self.program.steps;
        let known = steps.iter().position(|it| it == name);
        StepId(known.unwrap_or_else(|| {
            steps.push(name.to_owned());
            steps.len() - 1
        }))
    }

    /// The slot of a variable that is set from here on.
    pub(super) fn define(&mut self, name: &str) -> usize {
        self.defined.insert(name.to_owned());
        self.slot(name)
    }

    fn slot(&mut self, name: &str) -> usize {
        let slots = &mut self.program.slots;
        let known = slots.iter().position(|it| it.name == name);
        known.unwrap_or_else(|| {
            slots.push(Slot { name: name.to_owned(), in_header: false });
            slots.len() - 1
        })
    }

    /// Notes that these variables go into a header.
    pub(super) fn mark_headers(&mut self, slots: impl Iterator<Item = usize>) {
        for slot in slots {
            if let Some(slot) = self.program.slots.get_mut(slot) {
                slot.in_header = true;
            }
        }
    }

    /// The slot of a column of a data file, of which every user takes a row.
    fn column(&mut self, source: &str, table: &Arc<Table>, column: usize, name: &str) -> usize {
        let slot = self.slot(name);
        let bindings = &mut self.program.bindings;
        if !bindings.iter().any(|it| it.name == source) {
            let table = Arc::clone(table);
            bindings.push(Binding { name: source.to_owned(), table, columns: Vec::new() });
        }
        for binding in bindings.iter_mut().filter(|it| it.name == source) {
            if !binding.columns.contains(&(column, slot)) {
                binding.columns.push((column, slot));
            }
        }
        slot
    }
}

impl Names for Compiler<'_> {
    fn find(&mut self, name: &str) -> Option<Named> {
        if let Some(value) = self.common.constants.get(name) {
            return Some(Named::Constant(Value::clone(value)));
        }
        if self.defined.contains(name) {
            return Some(Named::Slot(self.slot(name)));
        }
        let (source, column) = name.split_once('.')?;
        let table = self.common.tables.get(source)?;
        let column = table.columns.iter().position(|it| it == column)?;
        let table = Arc::clone(table);
        Some(Named::Slot(self.column(source, &table, column, name)))
    }

    fn known(&self, name: &str) -> (Vec<String>, Option<String>) {
        let hint = self.extracted.get(name).map(|line| {
            format!(": it is extracted in line {line}, which not every user has done by then")
        });
        let constants = self.common.constants.keys().cloned();
        let columns = self.common.tables.iter().flat_map(|(source, table)| {
            table.columns.iter().map(move |column| format!("{source}.{column}"))
        });
        (constants.chain(columns).chain(self.defined.iter().cloned()).collect(), hint)
    }
}

fn weight(node: &Node) -> Result<f64, Error> {
    let Yaml::Map(entries) = &node.value else { return Ok(1.0) };
    match entries.iter().find(|(key, _)| key == "weight") {
        None => Ok(1.0),
        Some((_, weight)) => match weight.positive(WEIGHT_MAX) {
            Err(_) if matches!(&weight.value, Yaml::Number(it) if it.as_f64() == Some(0.0)) => {
                Err(weight.wrong("a branch of weight 0 is never chosen; leave it out"))
            }
            other => other,
        },
    }
}

/// All variables that are extracted somewhere below, and where.
fn find_extractions(node: &Node, found: &mut BTreeMap<String, u64>) {
    match &node.value {
        Yaml::List(items) => items.iter().for_each(|it| find_extractions(it, found)),
        Yaml::Map(entries) => {
            for (key, value) in entries {
                if key == "extract"
                    && let Yaml::Map(variables) = &value.value
                {
                    for (name, variable) in variables {
                        found.entry(name.clone()).or_insert(variable.line);
                    }
                } else {
                    find_extractions(value, found);
                }
            }
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) => {}
    }
}
