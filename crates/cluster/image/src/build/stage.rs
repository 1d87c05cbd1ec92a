//! Carries out the stages: each instruction changes the configuration, or makes a layer, or both.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    Error, Event, Host, Options, Problem, Step, User,
    archive::Archives,
    cache::Cache,
    copy::{self, Copying, Failure},
    diff,
    ignore::Ignore,
    instruction::{self, Command, Instruction},
    places::{Place, View},
    scratch::Scratch,
    stages::{Base, Stage, Stages, is_of_everybody, platforms},
    state::{State, absolute, exposed, healthcheck},
    users,
    words::{Quotes, expand, expand_with},
};
use crate::{
    Descriptor, Digest, Image, ImageConfig, Layer, Owners, Platform, Reference, Store,
    assemble::{self, Item, Plan, date},
    spec::Empty,
    store::Lease,
    tarball::Time,
    unpack,
};

/// What finds programs when an image says nothing.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A build while it goes on.
pub(super) struct Builder<'a> {
    pub(super) store: &'a Store,
    pub(super) lease: &'a Lease,
    pub(super) options: &'a Options,
    pub(super) host: &'a mut dyn Host,
    /// The context.
    pub(super) folder: PathBuf,
    pub(super) ignore: Ignore,
    pub(super) cache: Cache<'a>,
    pub(super) owners: Owners,
    pub(super) scratch: Scratch,
    /// Stages that are built, by number.
    pub(super) done: Vec<(usize, State)>,
}

/// Where an error belongs.
#[derive(Clone, Copy)]
struct At<'a> {
    line: usize,
    text: &'a str,
}

impl Builder<'_> {
    pub(super) fn run(&mut self, stages: &Stages) -> Result<Descriptor, Error> {
        let steps = |it: &usize| stages.all.get(*it).map_or(0, |it| it.steps.len() + 1);
        let of = stages.needed.iter().map(steps).sum();
        let mut number = 0;
        for at in &stages.needed {
            let Some(stage) = stages.all.get(*at) else { continue };
            number += 1;
            let text = match &stage.base {
                Base::Scratch => "FROM scratch".to_owned(),
                Base::Stage(stage) => format!("FROM stage {stage}"),
                Base::Image(name) => format!("FROM {name}"),
            };
            self.host.event(Event::Step { number, of, text: &text });
            let mut state = self.begin(stage)?;
            for (line, text, instruction) in &stage.steps {
                number += 1;
                self.host.event(Event::Step { number, of, text });
                self.step(stages, *at, &mut state, At { line: *line, text }, instruction)?;
            }
            self.done.push((*at, state));
        }
        let Some((_, state)) = self.done.pop() else {
            return Err(self.wrong(1, "there is no FROM"));
        };
        let mut config = state.image;
        config.created = Some(self.created());
        Ok(assemble::image(self.store, self.lease, config, &state.layers)?)
    }

    fn wrong(&self, line: usize, reason: impl Into<String>) -> Error {
        let problem = Problem::new(line, reason);
        Error::Dockerfile { file: self.options.dockerfile.clone(), problem }
    }

    fn failed(&self, at: At<'_>, failure: Failure) -> Error {
        match failure {
            Failure::Said(reason) => self.wrong(at.line, format!("{}: {reason}", keyword(at.text))),
            Failure::Io(what, source) => Error::Io { what, source },
        }
    }

    fn time(&self) -> Time {
        Time { seconds: self.options.time.unwrap_or(0), nanoseconds: 0 }
    }

    fn created(&self) -> String {
        date(self.time().seconds)
    }

    fn begin(&mut self, stage: &Stage) -> Result<State, Error> {
        match &stage.base {
            Base::Stage(base) => {
                let found = self.done.iter().find(|it| it.0 == *base);
                let mut state = found.map(|it| it.1.clone()).unwrap_or_default();
                (state.arguments, state.has_cmd) = (BTreeMap::new(), false);
                Ok(state)
            }
            Base::Scratch => {
                let Platform { architecture, os, variant } = Platform::host();
                let image = ImageConfig { architecture, os, variant, ..ImageConfig::default() };
                Ok(State { image, ..State::default() })
            }
            Base::Image(name) => {
                let image = self.image(stage.line, name)?;
                if let Some(it) = image.config.config.on_build.first() {
                    let reason =
                        format!("FROM: `{name}` wants `ONBUILD {it}`, which is not done here");
                    return Err(self.wrong(stage.line, reason));
                }
                let state = State { image: image.config, layers: image.layers, ..State::default() };
                Ok(state)
            }
        }
    }

    fn image(&mut self, line: usize, name: &str) -> Result<Image, Error> {
        let reference: Reference = name.parse().map_err(|it| self.wrong(line, format!("{it}")))?;
        let image = self.host.image(&reference).map_err(|source| Error::Host {
            file: self.options.dockerfile.clone(),
            line,
            what: format!("cannot use image `{name}`"),
            source,
        })?;
        self.lease.hold([image.target.digest, image.manifest, image.id])?;
        Ok(image)
    }

    fn step(
        &mut self,
        stages: &Stages,
        stage: usize,
        state: &mut State,
        at: At<'_>,
        instruction: &Instruction,
    ) -> Result<(), Error> {
        let escape = stages.escape;
        let words = |state: &State, text: &str| {
            expand(text, escape, &|name| state.variable(name))
                .map_err(|it| self.wrong(at.line, format!("{}: {it}", keyword(at.text))))
        };
        let all = |state: &State, texts: &[String]| -> Result<Vec<String>, Error> {
            texts.iter().map(|it| words(state, it)).collect()
        };
        match instruction {
            Instruction::From { .. } => {}
            Instruction::Arg(arguments) => {
                for (name, default) in arguments {
                    let default = default.as_ref().map(|it| words(state, it)).transpose()?;
                    self.declare(stages, state, name, default);
                }
            }
            Instruction::Env(pairs) => {
                // All of one instruction see what was before it.
                let before = state.clone();
                for (name, value) in pairs {
                    state.set_env(&words(&before, name)?, &words(&before, value)?);
                }
            }
            Instruction::Label(pairs) => {
                for (name, value) in pairs {
                    let (name, value) = (words(state, name)?, words(state, value)?);
                    state.config().labels.insert(name, value);
                }
            }
            Instruction::Expose(ports) => {
                for port in all(state, ports)? {
                    let ports = exposed(&port).ok_or_else(|| {
                        self.wrong(at.line, format!("EXPOSE: `{port}` is not a port"))
                    })?;
                    state.config().exposed_ports.extend(ports);
                }
            }
            Instruction::Volume(paths) => {
                let paths = all(state, paths)?;
                state.config().volumes.extend(paths.into_iter().map(|it| (it, Empty {})));
            }
            Instruction::User(user) => state.config().user = words(state, user)?,
            Instruction::StopSignal(signal) => state.config().stop_signal = words(state, signal)?,
            Instruction::Shell(shell) => state.config().shell.clone_from(shell),
            Instruction::Cmd(command) => {
                (state.config().cmd, state.has_cmd) = (state.words_of(command), true);
            }
            Instruction::Entrypoint(command) => state.set_entrypoint(command),
            Instruction::Healthcheck(health) => {
                state.config().healthcheck = Some(healthcheck(health.as_ref()));
            }
            Instruction::Workdir(path) => {
                let path = words(state, path)?;
                return self.workdir(state, at, &path);
            }
            Instruction::Copy(copy) => {
                let copy = self.expanded(state, at, copy, escape)?;
                return self.copy(stages, stage, state, at, &copy);
            }
            Instruction::Run(command) => return self.command(state, at, command),
        }
        state.note(self.created(), at.text, None);
        Ok(())
    }

    /// Gives an ARG its value: what was given for it, else its default.
    fn declare(&self, stages: &Stages, state: &mut State, name: &str, default: Option<String>) {
        let given = self.options.arguments.get(name).cloned();
        let global = || stages.globals.get(name).cloned();
        let platform = || platforms().get(name).cloned();
        if let Some(value) = given.or(default).or_else(global).or_else(platform) {
            state.arguments.insert(name.to_owned(), value);
        }
    }

    /// The instruction with its variables replaced.
    fn expanded(
        &self,
        state: &State,
        at: At<'_>,
        copy: &instruction::Copy,
        escape: char,
    ) -> Result<instruction::Copy, Error> {
        let said = |it: String| self.wrong(at.line, format!("{}: {it}", keyword(at.text)));
        let variables = |name: &str| state.variable(name);
        let words = |text: &String| expand(text, escape, &variables).map_err(said);
        let flag = |it: &Option<String>| it.as_ref().map(words).transpose();
        let mut expanded = instruction::Copy {
            is_add: copy.is_add,
            from: copy.from.clone(),
            chown: flag(&copy.chown)?,
            chmod: flag(&copy.chmod)?,
            sources: copy.sources.iter().map(words).collect::<Result<_, _>>()?,
            documents: copy.documents.clone(),
            to: words(&copy.to)?,
        };
        for document in expanded.documents.iter_mut().filter(|it| it.is_expanded) {
            let text = expand_with(&document.text, escape, &variables, Quotes::Kept);
            document.text = text.map_err(said)?;
        }
        Ok(expanded)
    }

    /// The layers of an image as a place, unpacked if they are not yet.
    fn unpacked(&self, state: &mut State) -> Result<Vec<PathBuf>, Error> {
        if let Some(folders) = &state.folders {
            return Ok(folders.clone());
        }
        self.lease.hold(state.layers.iter().flat_map(|it| [it.digest, it.diff_id]))?;
        let mut chain = None;
        for layer in &state.layers {
            chain = Some(unpack::chain_id(chain.as_ref(), &layer.diff_id));
            self.lease.hold(chain)?;
        }
        let folders = unpack::of_layers(self.store, &state.layers, self.owners)?.folders;
        state.folders = Some(folders.clone());
        Ok(folders)
    }

    /// Adds a layer that has what is planned; none if that is nothing.
    fn add(&mut self, state: &mut State, at: At<'_>, plan: &Plan, text: &str) -> Result<(), Error> {
        if plan.is_empty() {
            state.note(self.created(), text, None);
            return Ok(());
        }
        let key = format!("plan {} {}", plan.digest()?, self.time().seconds);
        let layer = self.cached(Digest::of(key.as_bytes()), at, |this| {
            Ok(plan.write(this.store, this.lease)?)
        })?;
        state.note(self.created(), text, Some(layer));
        Ok(())
    }

    /// The layer of this key: one that was made before, or what `make` makes.
    fn cached(
        &mut self,
        key: Digest,
        at: At<'_>,
        make: impl FnOnce(&mut Self) -> Result<Layer, Error>,
    ) -> Result<Layer, Error> {
        if let Some(layer) = self.cache.find(&key) {
            self.lease.hold([layer.digest, layer.diff_id])?;
            // It may have been collected just before it was held.
            if self.cache.find(&key).is_some() {
                self.host.event(Event::Cached);
                return Ok(layer);
            }
        }
        let layer = make(self)?;
        self.cache.note(&key, &layer).map_err(|source| Error::Io {
            what: format!("remember the step of line {}", at.line),
            source,
        })?;
        Ok(layer)
    }

    fn workdir(&mut self, state: &mut State, at: At<'_>, path: &str) -> Result<(), Error> {
        let path = absolute(&state.config().working_dir, path);
        state.config().working_dir.clone_from(&path);
        let folders = self.unpacked(state)?;
        let image = Place::Layers(View { folders: &folders, owners: self.owners });
        let io = |it| Failure::Io(format!("look for `{path}` in the image"), it);
        let resolved = image.resolve(path.as_bytes()).map_err(io);
        let resolved = resolved.map_err(|it| self.failed(at, it))?;
        let there = image.stat(&resolved).map_err(io).map_err(|it| self.failed(at, it))?;
        let mut plan = Plan::default();
        if there.is_none() {
            plan.put(Item::folder(resolved, 0o755, self.time()));
            copy::fill(&mut plan, &image, self.time(), None)
                .map_err(io)
                .map_err(|it| self.failed(at, it))?;
        }
        self.add(state, at, &plan, at.text)
    }

    fn copy(
        &mut self,
        stages: &Stages,
        stage: usize,
        state: &mut State,
        at: At<'_>,
        copy: &instruction::Copy,
    ) -> Result<(), Error> {
        let folders = self.unpacked(state)?;
        let image = Place::Layers(View { folders: &folders, owners: self.owners });
        let others;
        let folder = self.folder.clone();
        let ignore = self.ignore.clone();
        let from = match &copy.from {
            None => Place::Context { folder: &folder, ignore: &ignore },
            Some(from) => {
                others = self.others(stages, stage, at, from)?;
                Place::Layers(View { folders: &others, owners: self.owners })
            }
        };
        let archives = copy.is_add.then(|| self.scratch("archives").map(Archives::new));
        let archives = archives.transpose()?;
        let said = |it: String| Failure::Said(it);
        let plan = || -> Result<Plan, Failure> {
            let owner = copy.chown.as_ref().map(|it| owner(it, &image)).transpose()?;
            let mode = copy.chmod.as_ref().map(|it| {
                let mode = u32::from_str_radix(it, 8).ok().filter(|it| *it <= 0o7777);
                mode.ok_or_else(|| said(format!("--chmod={it} is not an octal mode")))
            });
            let document =
                |it: &super::parse::Document| (it.name.clone(), it.text.clone().into_bytes());
            let mut to = absolute(&state.image.config.working_dir, &copy.to);
            if (copy.to.ends_with('/') || copy.to == ".") && !to.ends_with('/') {
                to.push('/');
            }
            Copying {
                from: &from,
                image: &image,
                sources: &copy.sources,
                documents: copy.documents.iter().map(document).collect(),
                to,
                owner,
                mode: mode.transpose()?,
                archives: archives.as_ref(),
                time: self.time(),
            }
            .plan()
        };
        let plan = plan().map_err(|it| self.failed(at, it))?;
        self.add(state, at, &plan, at.text)
    }

    /// The layers of another stage or image.
    fn others(
        &mut self,
        stages: &Stages,
        stage: usize,
        at: At<'_>,
        from: &str,
    ) -> Result<Vec<PathBuf>, Error> {
        if let Some(found) = stages.find(from, stage) {
            let position = self.done.iter().position(|it| it.0 == found);
            let mut state = position.and_then(|it| self.done.get(it)).map(|it| it.1.clone());
            return self.unpacked(state.get_or_insert_default());
        }
        let image = self.image(at.line, from)?;
        let mut state = State { layers: image.layers, ..State::default() };
        self.unpacked(&mut state)
    }

    fn command(&mut self, state: &mut State, at: At<'_>, command: &Command) -> Result<(), Error> {
        let arguments = state.words_of(command);
        let folders = self.unpacked(state)?;
        let image = Place::Layers(View { folders: &folders, owners: self.owners });
        let config = &state.image.config;
        let user = match config.user.as_str() {
            "" => User { uid: 0, gid: 0, groups: Vec::new(), home: "/root".to_owned() },
            name => users::find(name, &image).map_err(|it| self.failed(at, it.into()))?,
        };
        let workdir =
            if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() };
        let given = self.options.arguments.iter().filter(|it| is_of_everybody(it.0));
        let mut env: BTreeMap<&str, String> = BTreeMap::new();
        env.insert("PATH", PATH.trim_start_matches("PATH=").to_owned());
        env.insert("HOME", user.home.clone());
        env.extend(state.arguments.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let pairs = config.env.iter().filter_map(|it| it.split_once('='));
        env.extend(pairs.map(|(name, value)| (name, value.to_owned())));
        // Who is asked for what does not change what is built.
        let known = format!("{env:?}");
        env.extend(given.map(|(name, value)| (name.as_str(), value.clone())));
        let env: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let chain = state.layers.iter().fold(None, |below: Option<Digest>, it| {
            Some(unpack::chain_id(below.as_ref(), &it.diff_id))
        });
        let time = self.options.time;
        let key = format!("run {chain:?} {arguments:?} {known} {workdir:?} {user:?} {time:?}");
        let text = match state.arguments.is_empty() {
            true => format!("RUN {}", arguments.join(" ")),
            false => {
                let given = state.arguments.iter().map(|(name, value)| format!("{name}={value}"));
                let given = given.collect::<Vec<_>>().join(" ");
                format!("RUN |{} {given} {}", state.arguments.len(), arguments.join(" "))
            }
        };
        let layer = self.cached(Digest::of(key.as_bytes()), at, |this| {
            let writable = this.scratch("writable")?;
            let step = Step {
                layers: &folders,
                writable: &writable,
                arguments: &arguments,
                env: &env,
                workdir: &workdir,
                user: &user,
            };
            let code = this.host.run(&step).map_err(|source| Error::Host {
                file: this.options.dockerfile.clone(),
                line: at.line,
                what: format!("cannot run `{}`", arguments.join(" ")),
                source,
            })?;
            if code != 0 {
                let (file, command) = (this.options.dockerfile.clone(), arguments.join(" "));
                return Err(Error::Failed { file, line: at.line, command, code });
            }
            let plan = diff::plan(&writable.join("upper"), &image, this.owners, this.options.time);
            let plan = plan.map_err(|source| Error::Io {
                what: format!("read what the command of line {} has written", at.line),
                source,
            })?;
            let layer = plan.write(this.store, this.lease)?;
            this.scratch("writable")?;
            Ok(layer)
        })?;
        state.note(self.created(), &text, Some(layer));
        Ok(())
    }

    /// An empty folder of the build's own.
    fn scratch(&self, name: &str) -> Result<PathBuf, Error> {
        self.scratch.empty(name).map_err(|source| Error::Io {
            what: format!("make the folder `{}`", self.scratch.path().join(name).display()),
            source,
        })
    }
}

fn owner(text: &str, image: &Place<'_>) -> Result<(u64, u64), String> {
    let user = users::find(text, image)?;
    let is_number = text.parse::<u32>().is_ok();
    // A number alone is meant for both, as Docker has it.
    let gid = if is_number { user.uid } else { user.gid };
    Ok((user.uid.into(), gid.into()))
}

fn keyword(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}
