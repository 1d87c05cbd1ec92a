//! A scenario file as a whole: its top level, and the plan that comes of it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use runtime::Clock;

use super::{
    arrival::{self, expected_arrivals},
    data::{self, Table},
    document::{self, Fields, Node, Value as Yaml},
    error::Error,
    flow::Compiler,
    program::Program,
    request::{Common, Defaults},
    target::Target,
    template::{Escape, Named, Names, Template, Value},
    threshold::Threshold,
    user::{Scripted, Shared},
    verdict::select,
};
use crate::{
    exchange::Origin,
    plan::{Arrival, Flow, Plan, Protocol, Spacing, Stage, Transport},
};

/// Largest scenario, in bytes.
const FILE_BYTES_MAX: usize = 4 << 20;
/// How long answers are waited for when nothing else is said: as long as a request may take.
const GRACE: Duration = Duration::from_secs(30);
/// Most connections that a file may ask for.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// The name of a scenario that is the whole file.
const MAIN: &str = "main";
/// What keys begin with that are the user's own.
const OWN: &str = "x-";

/// Where files and variables of the environment come from.
pub(crate) struct Files<'a> {
    /// The file of this path, up to one byte more than so many.
    pub(super) read: &'a dyn Fn(&str, usize) -> io::Result<Vec<u8>>,
    /// A variable of the environment.
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Files<'_> {
    /// All of a file that `node` names.
    pub(super) fn bytes(&self, node: &Node, path: &str, most: usize) -> Result<Vec<u8>, Error> {
        let bytes = (self.read)(path, most);
        let bytes = bytes.map_err(|error| node.wrong(format!("read `{path}`: {error}")))?;
        if bytes.len() > most {
            return Err(node.wrong(format!("`{path}` is larger than {} MiB", most >> 20)));
        }
        Ok(bytes)
    }

    /// The same, if it is text.
    pub(super) fn text(&self, node: &Node, path: &str, most: usize) -> Result<String, Error> {
        let text = String::from_utf8(self.bytes(node, path, most)?);
        text.map_err(|_| node.wrong(format!("`{path}` is no text in UTF-8")))
    }
}

/// A scenario file, compiled.
#[derive(Clone, Debug)]
pub struct Scenario {
    file: Arc<str>,
    flows: Vec<Compiled>,
    thresholds: Vec<Threshold>,
    seed: Option<u64>,
    grace: Option<Duration>,
    connections_max: Option<usize>,
    protocol: Protocol,
    targets: Vec<Origin>,
}

#[derive(Clone, Debug)]
struct Compiled {
    name: String,
    line: u64,
    arrival: Option<Arrival>,
    program: Arc<Program>,
}

/// What the command line says instead of the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The seed. Without one here and in the file, it is a new one.
    pub seed: Option<u64>,
    /// A schedule, in place of whatever the file's only scenario has.
    pub stages: Option<Vec<Stage>>,
    /// Users at once of a closed loop, in place of whatever the file's only scenario has.
    pub users: Option<usize>,
    /// How long users arrive: of every scenario with a constant rate or a closed loop.
    pub duration: Option<Duration>,
}

/// Reads a scenario. Files that it names are relative to its folder.
///
/// # Errors
///
/// What is wrong in it, with file, line and key.
pub fn read(path: &Path) -> Result<Scenario, Error> {
    let name: Arc<str> = path.display().to_string().into();
    let text = fs::File::open(path).and_then(|mut it| bytes(&mut it, FILE_BYTES_MAX));
    compile(&name, text, path.parent().unwrap_or(Path::new("")))
}

/// Reads a scenario that is in no file, such as one on standard input. Files that it names are
/// relative to the working directory; mistakes are said to be in `name`.
///
/// # Errors
///
/// As [`read`].
pub fn read_from(name: &str, input: &mut impl io::Read) -> Result<Scenario, Error> {
    compile(&name.into(), bytes(input, FILE_BYTES_MAX), Path::new(""))
}

/// Up to one byte more than `most`, which tells that there are more.
fn bytes(input: &mut impl io::Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    input.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn compile(file: &Arc<str>, text: io::Result<Vec<u8>>, folder: &Path) -> Result<Scenario, Error> {
    let whole = |what: String| Error { file: file.clone(), line: 0, key: String::new(), what };
    let text = text.map_err(|error| whole(error.to_string()))?;
    if text.len() > FILE_BYTES_MAX {
        return Err(whole(format!("larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let text = String::from_utf8(text).map_err(|_| whole("no text in UTF-8".to_owned()))?;
    let read = |name: &str, most: usize| bytes(&mut fs::File::open(folder.join(name))?, most);
    #[expect(clippy::disallowed_methods, reason = "only those that the scenario itself names")]
    let environment = |name: &str| std::env::var(name).ok();
    parse(file, &text, &Files { read: &read, environment: &environment })
}

/// Compiles the text of a scenario.
pub(super) fn parse(file: &Arc<str>, text: &str, files: &Files<'_>) -> Result<Scenario, Error> {
    let document = document::parse(file, text)?;
    let mut fields = document.fields()?;
    fields.pass_over(OWN);
    let constants = constants(&mut fields, files)?;
    let mut defaults = fields.take("defaults").map(Node::fields).transpose()?;
    let mut default = |name| defaults.as_mut().and_then(|it| it.take(name));
    let protocol = default("protocol").map_or(Ok(Protocol::Http1), protocol_of)?;
    let common = Common {
        files,
        target: base(fields.take("target"), &constants)?,
        tables: tables(fields.take("data"), files)?,
        constants,
        cookies: default("cookies").map_or(Ok(true), Node::bool)?,
        defaults: Defaults {
            headers: default("headers"),
            auth: default("auth"),
            timeout: default("timeout"),
            redirects: default("redirects"),
            on_failure: default("on_failure"),
        },
        origins: RefCell::default(),
    };
    defaults.map_or(Ok(()), Fields::finish)?;
    let flows = flows(&mut fields, &common)?;
    let seed = fields.take("seed").map(|it| it.whole(0, u64::MAX)).transpose()?;
    let grace = fields.take("grace").map(Node::duration).transpose()?;
    let connections = fields.take("connections").map(|it| it.whole(1, CONNECTIONS_MAX));
    let connections = connections.transpose()?.and_then(|it| usize::try_from(it).ok());
    let thresholds = thresholds(fields.take("thresholds"), &flows)?;
    fields.finish()?;
    let origins = common.origins.into_inner();
    let flows = flows.into_iter().map(|(name, line, arrival, program)| {
        let program = Arc::new(Program { origins: origins.clone(), ..program });
        Compiled { name, line, arrival, program }
    });
    Ok(Scenario {
        file: Arc::clone(file),
        flows: flows.collect(),
        thresholds,
        seed,
        grace,
        connections_max: connections,
        protocol,
        targets: origins.iter().map(|it| Origin::clone(it)).collect(),
    })
}

fn protocol_of(node: &Node) -> Result<Protocol, Error> {
    match node.text()? {
        "http1" => Ok(Protocol::Http1),
        "http2" => Ok(Protocol::Http2),
        other => Err(node.wrong(format!("`{other}` is neither `http1` nor `http2`"))),
    }
}

/// Names that are known before the run.
struct Constants<'a>(&'a BTreeMap<String, Value>);

impl Names for Constants<'_> {
    fn find(&mut self, name: &str) -> Option<Named> {
        self.0.get(name).cloned().map(Named::Constant)
    }

    fn known(&self, _: &str) -> (Vec<String>, Option<String>) {
        (self.0.keys().cloned().collect(), None)
    }
}

/// A text in which only constants may stand.
fn constant(node: &Node, text: &str, known: &BTreeMap<String, Value>) -> Result<String, Error> {
    let template = Template::compile(text, Escape::Nothing, &mut Constants(known));
    let template = template.map_err(|error| node.wrong(error))?;
    let text = template.constant().map(str::to_owned);
    text.ok_or_else(|| node.wrong("must be known before the run"))
}

/// `env` and `variables`.
fn constants(fields: &mut Fields<'_>, files: &Files<'_>) -> Result<BTreeMap<String, Value>, Error> {
    let mut constants = BTreeMap::new();
    let environment = fields.take("env");
    for (name, node) in entries(environment, "a map of names to variables")? {
        check_name(name, node)?;
        let (variable, default) = match &node.value {
            Yaml::Map(_) => {
                let mut fields = node.fields()?;
                let variable = fields.require("from")?.text()?;
                let default = fields.take("default").map(Node::scalar).transpose()?;
                fields.finish()?;
                (variable, default)
            }
            _ => (node.text()?, None),
        };
        let value = (files.environment)(variable).or(default).ok_or_else(|| {
            node.wrong(format!("the environment has no `{variable}`, and there is no `default`"))
        })?;
        constants.insert(name.clone(), Value::text(&value));
    }
    let variables = fields.take("variables");
    for (name, node) in entries(variables, "a map of names to values")? {
        check_name(name, node)?;
        if constants.contains_key(name) {
            return Err(node.wrong("this name is taken by `env`"));
        }
        let text = constant(node, &node.scalar()?, &constants)?;
        let json = !matches!(node.value, Yaml::Text(_));
        constants.insert(name.clone(), Value { text: text.into(), json });
    }
    Ok(constants)
}

fn check_name(name: &str, node: &Node) -> Result<(), Error> {
    let allowed = |it: char| it.is_alphanumeric() || it == '_' || it == '-';
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(node.wrong("a name has letters, digits, `_` and `-`, and nothing else"));
    }
    Ok(())
}

fn base(node: Option<&Node>, constants: &BTreeMap<String, Value>) -> Result<Option<Target>, Error> {
    let Some(node) = node else { return Ok(None) };
    let text = constant(node, node.text()?, constants)?;
    let target: Target = text.parse().map_err(|error: String| node.wrong(error))?;
    if target.path.contains('?') {
        return Err(node.wrong("a target has no query"));
    }
    Ok(Some(target))
}

fn tables(node: Option<&Node>, files: &Files<'_>) -> Result<BTreeMap<String, Arc<Table>>, Error> {
    let mut tables = BTreeMap::new();
    for (name, node) in entries(node, "a map of names to data files")? {
        check_name(name, node)?;
        tables.insert(name.clone(), Arc::new(Table::read(node, files)?));
    }
    Ok(tables)
}

type Uncompiled = (String, u64, Option<Arrival>, Program);

/// The entries of a map that may be left out.
fn entries<'a>(node: Option<&'a Node>, what: &str) -> Result<&'a [(String, Node)], Error> {
    node.map_or(Ok(&[]), |it| it.map(what))
}

/// The scenarios: those of `scenarios`, or the file itself.
fn flows(fields: &mut Fields<'_>, common: &Common<'_>) -> Result<Vec<Uncompiled>, Error> {
    let Some(scenarios) = fields.take("scenarios") else {
        return Ok(vec![flow(fields, MAIN, common)?]);
    };
    if fields.has("steps") {
        return Err(scenarios.wrong("`steps` stand in a scenario when there is `scenarios`"));
    }
    let mut flows: Vec<Uncompiled> = Vec::new();
    for (name, node) in scenarios.map("a map of scenarios")? {
        check_name(name, node)?;
        let mut fields = node.fields()?;
        let flow = flow(&mut fields, name, common)?;
        fields.finish()?;
        unshared(&flows, &flow, node)?;
        flows.push(flow);
    }
    if flows.is_empty() {
        return Err(scenarios.wrong("no scenarios"));
    }
    Ok(flows)
}

fn flow(fields: &mut Fields<'_>, name: &str, common: &Common<'_>) -> Result<Uncompiled, Error> {
    let arrival = arrival::compile(fields, common.files)?;
    let steps = fields.require("steps")?;
    let program = Compiler::compile(common, steps)?;
    Ok((name.to_owned(), fields.node.line, arrival, program))
}

/// Fails if two scenarios take rows of one file that each user is to have for itself: each numbers
/// its own users.
fn unshared(flows: &[Uncompiled], new: &Uncompiled, node: &Node) -> Result<(), Error> {
    for binding in new.3.bindings.iter().filter(|it| it.table.pick == data::Pick::Unique) {
        let other = flows.iter().find(|it| it.3.bindings.iter().any(|it| it.name == binding.name));
        if let Some((other, ..)) = other {
            let name = &binding.name;
            return Err(node.wrong(format!(
                "the rows of `{name}` are unique, and `{other}` takes them already; give each \
                 scenario a file of its own"
            )));
        }
    }
    Ok(())
}

fn thresholds(node: Option<&Node>, flows: &[Uncompiled]) -> Result<Vec<Threshold>, Error> {
    let names = flows.iter().flat_map(|(flow, _, _, program)| {
        program.steps.iter().map(move |step| format!("{flow}/{step}"))
    });
    let names: Vec<String> = names.collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut thresholds = Vec::new();
    for node in node.map_or(Ok(&[][..]), |it| it.list("a list of thresholds"))? {
        // `- checkout: p95 < 200ms` is a map to YAML.
        let text = match &node.value {
            Yaml::Map(entries) => match entries.as_slice() {
                [(scope, condition)] => format!("{scope}: {}", condition.text()?),
                _ => return Err(node.wrong("write one threshold an item")),
            },
            _ => node.text()?.to_owned(),
        };
        let threshold: Threshold = text.parse().map_err(|error: String| node.wrong(error))?;
        if let Some(scope) = &threshold.scope {
            select(scope, &names).map_err(|error| node.wrong(error))?;
        }
        thresholds.push(threshold);
    }
    Ok(thresholds)
}

impl Scenario {
    /// The file's thresholds, in their order.
    #[must_use]
    pub fn thresholds(&self) -> &[Threshold] {
        &self.thresholds
    }

    /// Fails if a threshold is about a flow or a step that is not there.
    ///
    /// # Errors
    ///
    /// That, in words.
    pub fn check_threshold(&self, threshold: &Threshold) -> Result<(), String> {
        let names = self.flows.iter().flat_map(|flow| {
            flow.program.steps.iter().map(move |step| format!("{}/{step}", flow.name))
        });
        let names: Vec<String> = names.collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        threshold.scope.as_ref().map_or(Ok(()), |it| select(it, &names).map(drop))
    }

    /// What the run is to do. How connections are made is the command line's to say, but for the
    /// protocol.
    ///
    /// # Errors
    ///
    /// If a scenario does not say when its users arrive, an override does not fit, or a data file
    /// has not enough rows for users that are to have one each.
    pub fn plan(&self, overrides: &Overrides) -> Result<Plan, Error> {
        let began = Clock::system().now();
        let mut flows = Vec::new();
        for flow in &self.flows {
            let arrival = self.arrival(flow, overrides)?;
            self.check_rows(flow, &arrival)?;
            let places = match &arrival {
                Arrival::Open(_) => None,
                Arrival::Closed { users, .. } => u64::try_from(*users).ok(),
            };
            let program = Arc::clone(&flow.program);
            let scripted = Arc::new(Scripted { program, places, began });
            let behaviour = Arc::new(Shared(scripted));
            flows.push(Flow { name: flow.name.clone(), arrival, behaviour });
        }
        Ok(Plan {
            seed: overrides.seed.or(self.seed).unwrap_or_else(|| fastrand::u64(..)),
            flows,
            grace: self.grace.unwrap_or(GRACE),
            connections_max: self.connections_max,
            targets: self.targets.clone(),
            transport: Transport { protocol: self.protocol, ..Transport::default() },
        })
    }

    fn arrival(&self, flow: &Compiled, overrides: &Overrides) -> Result<Arrival, Error> {
        let instead = overrides.stages.is_some() || overrides.users.is_some();
        if instead && self.flows.len() > 1 {
            return Err(self.wrong(flow, "a schedule or a number of users fits one scenario only"));
        }
        let duration = match (overrides.duration, &flow.arrival) {
            (Some(duration), _) => Some(duration),
            (None, Some(Arrival::Closed { duration, .. })) => Some(*duration),
            (None, Some(Arrival::Open(stages))) => Some(stages.iter().map(|it| it.duration).sum()),
            (None, None) => None,
        };
        let needed = || duration.ok_or_else(|| self.wrong(flow, "how long do users arrive?"));
        match (&overrides.stages, overrides.users, &flow.arrival) {
            (Some(_), Some(_), _) => {
                Err(self.wrong(flow, "either a schedule or a number of users at once, not both"))
            }
            (Some(stages), None, _) => Ok(Arrival::Open(stages.clone())),
            (None, Some(users), _) => Ok(Arrival::Closed { users, duration: needed()? }),
            (None, None, None) => Err(self.wrong(
                flow,
                "nothing says when users arrive: write `rate`, `ramp`, `stages`, `replay` or \
                 `closed`",
            )),
            (None, None, Some(Arrival::Closed { users, .. })) => {
                Ok(Arrival::Closed { users: *users, duration: needed()? })
            }
            (None, None, Some(Arrival::Open(stages))) => match (overrides.duration, &**stages) {
                (None, _) => Ok(Arrival::Open(stages.clone())),
                (Some(duration), [stage]) => {
                    Ok(Arrival::Open(vec![Stage { duration, ..stage.clone() }]))
                }
                (Some(_), _) => Err(self.wrong(flow, "its stages say how long they last")),
            },
        }
    }

    /// Fails if users that are to have a row each would be more than rows.
    fn check_rows(&self, flow: &Compiled, arrival: &Arrival) -> Result<(), Error> {
        let needed = match arrival {
            #[expect(clippy::cast_precision_loss, reason = "users are far below 2^53")]
            Arrival::Closed { users, .. } => *users as f64,
            Arrival::Open(stages) => {
                let mean = expected_arrivals(stages);
                let random = stages.iter().any(|it| it.spacing == Spacing::Poisson);
                // Six standard deviations: once in a thousand million runs.
                if random { 6.0f64.mul_add(mean.sqrt(), mean).ceil() } else { mean.ceil() }
            }
        };
        for binding in flow.program.bindings.iter() {
            let rows = binding.table.rows.len();
            #[expect(clippy::cast_precision_loss, reason = "rows are far below 2^53")]
            if binding.table.pick == data::Pick::Unique && (rows as f64) < needed {
                let name = &binding.name;
                return Err(self.wrong(
                    flow,
                    &format!("`{name}` has {rows} rows for {needed} users who each need their own"),
                ));
            }
        }
        Ok(())
    }

    fn wrong(&self, flow: &Compiled, what: &str) -> Error {
        let key =
            if flow.name == MAIN { String::new() } else { format!("scenarios.{}", flow.name) };
        Error { file: Arc::clone(&self.file), line: flow.line, key, what: what.to_owned() }
    }
}
