//! COPY and ADD: which files become what in the layer.
//!
//! Ref: the Dockerfile reference of Docker, "COPY" and "ADD".

use std::{io, path::Path};

use super::{
    archive::Archives,
    ignore::Pattern,
    places::{Found, Kind, Place, join},
};
use crate::{
    assemble::{Item, Plan},
    tarball::Time,
};

/// Most files of one instruction: what a layer may have.
const FILES_MAX: usize = 4_000_000;

/// One instruction with all its words replaced.
pub(super) struct Copying<'a> {
    /// Where sources are.
    pub(super) from: &'a Place<'a>,
    /// The image until now.
    pub(super) image: &'a Place<'a>,
    pub(super) sources: &'a [String],
    /// Files that stand in the Dockerfile itself, by name.
    pub(super) documents: Vec<(String, Vec<u8>)>,
    /// Absolute; with a slash at its end it is a folder.
    pub(super) to: String,
    /// Owner and group; root without.
    pub(super) owner: Option<(u64, u64)>,
    pub(super) mode: Option<u32>,
    /// Unpacks archives, if they are to be.
    pub(super) archives: Option<&'a Archives>,
    /// Of all that is copied.
    pub(super) time: Time,
}

/// Why nothing was copied, in words for the user.
#[derive(Debug)]
pub(super) enum Failure {
    Said(String),
    Io(String, io::Error),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Said(text)
    }
}

impl Copying<'_> {
    /// What the layer has.
    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let sources = self.found()?;
        let many = sources.len() + self.documents.len();
        let is_folder = self.to.ends_with('/');
        if 1 < many && !is_folder {
            return Err(format!("with several sources, `{}` must end with a slash", self.to).into());
        }
        let to = look(self.image.resolve(self.to.as_bytes()), &self.to)?;
        let there = look(self.image.stat(&to), &self.to)?;
        let is_folder = is_folder || there.as_ref().is_some_and(|it| it.kind == Kind::Folder);
        let mut plan = Plan::default();
        let mut count = 0;
        for (path, found) in sources {
            let name = path.rsplit(|it| *it == b'/').next().unwrap_or_default();
            if found.kind == Kind::Folder {
                if there.as_ref().is_some_and(|it| it.kind != Kind::Folder) {
                    return Err(format!("`{}` is no folder", self.to).into());
                }
                if there.is_none() && !to.is_empty() {
                    self.put(
                        &mut plan,
                        &to,
                        &found,
                        Item::folder(to.clone(), found.mode, self.time),
                    );
                }
                self.folder(&mut plan, &path, &to, &mut count)?;
                continue;
            }
            if let Some(archives) = self.archives
                && archives.add(&found.path, &to, self, &mut plan)?
            {
                continue;
            }
            let to = if is_folder { join(&to, name) } else { to.clone() };
            self.entry(&mut plan, &path, &found, to, &mut count)?;
        }
        for (name, text) in &self.documents {
            let to = if is_folder { join(&to, name.as_bytes()) } else { to.clone() };
            let mut item = Item::bytes("", text.clone(), self.mode.unwrap_or(0o644), self.time);
            item.entry.name = to;
            (item.entry.uid, item.entry.gid) = self.owner.unwrap_or((0, 0));
            plan.put(item);
        }
        if is_folder && plan.is_empty() && there.is_none() && !to.is_empty() {
            plan.put(Item::folder(to, 0o755, self.time));
        }
        self.fill(&mut plan)?;
        Ok(plan)
    }

    /// The sources: what is named, or what is meant by patterns.
    fn found(&self) -> Result<Vec<(Vec<u8>, Found)>, Failure> {
        let mut found = Vec::new();
        for source in self.sources {
            let parts: Vec<&str> =
                source.split('/').filter(|it| !matches!(*it, "" | ".")).collect();
            if parts.contains(&"..") {
                return Err(format!("`{source}` leads out of the context").into());
            }
            let before = found.len();
            for path in self.matching(source, &parts)? {
                // What is named is meant, not the link that leads there.
                let real = look(self.from.resolve(&path), source)?;
                if let Some(there) = look(self.from.stat(&real), source)?
                    && (there.kind == Kind::Folder || self.from.is_itself(&real))
                {
                    // By the name that was given, with what is there.
                    let path = if there.kind == Kind::Folder { real } else { path };
                    found.push((path, there));
                }
            }
            if found.len() == before {
                return Err(format!("`{source}` is not there, or .dockerignore has it").into());
            }
        }
        Ok(found)
    }

    fn matching(&self, source: &str, parts: &[&str]) -> Result<Vec<Vec<u8>>, Failure> {
        let mut paths = vec![Vec::new()];
        for part in parts {
            let pattern = Pattern::parse(part)?;
            if pattern.is_literal() {
                let literal = part.replace('\\', "");
                paths.iter_mut().for_each(|it| *it = join(it, literal.as_bytes()));
                continue;
            }
            let mut next = Vec::new();
            for path in paths {
                let real = look(self.from.resolve(&path), source)?;
                let is_folder = |it: Option<Found>| it.is_some_and(|it| it.kind == Kind::Folder);
                if !is_folder(look(self.from.stat(&real), source)?) {
                    continue;
                }
                for name in look(self.from.list(&real), source)? {
                    let path = join(&path, &name);
                    if pattern.matches(&name) && look(self.from.stat(&path), source)?.is_some() {
                        next.push(path);
                    }
                }
            }
            paths = next;
        }
        Ok(paths)
    }

    /// All that is in a folder.
    fn folder(
        &self,
        plan: &mut Plan,
        from: &[u8],
        to: &[u8],
        count: &mut usize,
    ) -> Result<(), Failure> {
        let mut next = vec![(from.to_vec(), to.to_vec())];
        while let Some((from, to)) = next.pop() {
            let shown = String::from_utf8_lossy(&from).into_owned();
            for name in look(self.from.list(&from), &shown)? {
                let from = join(&from, &name);
                let Some(found) = look(self.from.stat(&from), &shown)? else { continue };
                // A folder of the image may be behind a link.
                let to = match found.kind {
                    Kind::Folder => look(self.image.resolve(&join(&to, &name)), &shown)?,
                    _ => join(&to, &name),
                };
                if found.kind == Kind::Folder {
                    next.push((from.clone(), to.clone()));
                    if !self.from.is_itself(&from) {
                        continue;
                    }
                }
                self.entry(plan, &from, &found, to, count)?;
            }
        }
        Ok(())
    }

    /// One file, link or folder without what is in it.
    fn entry(
        &self,
        plan: &mut Plan,
        from: &[u8],
        found: &Found,
        to: Vec<u8>,
        count: &mut usize,
    ) -> Result<(), Failure> {
        *count += 1;
        if FILES_MAX < *count {
            return Err(format!("more than {FILES_MAX} files").into());
        }
        let shown = String::from_utf8_lossy(&to).into_owned();
        let is_there = look(self.image.stat(&to), &shown)?;
        let is_folder = is_there.is_some_and(|it| it.kind == Kind::Folder);
        if is_folder != (found.kind == Kind::Folder) && is_folder {
            return Err(format!("`/{shown}` is a folder, and a file would take its place").into());
        }
        let last = to.rsplit(|it| *it == b'/').next().unwrap_or_default();
        if last.starts_with(b".wh.") {
            return Err(
                format!("`/{shown}`: names beginning with .wh. cannot be in a layer").into()
            );
        }
        let item = match &found.kind {
            Kind::File { size } => {
                Item::file(to.clone(), &found.path, *size, found.mode, self.time)
            }
            Kind::Folder => Item::folder(to.clone(), found.mode, self.time),
            Kind::Link(target) => Item::link(to.clone(), target.clone(), self.time),
            Kind::Other => {
                let from = String::from_utf8_lossy(from);
                return Err(format!("`{from}` is no file, no folder and no symbolic link").into());
            }
        };
        self.put(plan, &to, found, item);
        Ok(())
    }

    fn put(&self, plan: &mut Plan, to: &[u8], found: &Found, mut item: Item) {
        item.entry.name = to.to_vec();
        (item.entry.uid, item.entry.gid) = self.owner.unwrap_or((0, 0));
        if let Some(mode) = self.mode.filter(|_| !matches!(found.kind, Kind::Link(_))) {
            item.entry.mode = mode;
        }
        plan.put(item);
    }

    /// The folders above all that: as they are in the image, or new.
    pub(super) fn fill(&self, plan: &mut Plan) -> Result<(), Failure> {
        fill(plan, self.image, self.time, self.owner)
            .map_err(|it| Failure::Io("look into the image".to_owned(), it))
    }
}

/// What was looked up by a name, or why it could not be.
pub(super) fn look<T>(result: io::Result<T>, name: &str) -> Result<T, Failure> {
    result.map_err(|it| Failure::Io(format!("read `{name}`"), it))
}

/// Plans the folders above everything planned: as they are in the image, or new and `owner`'s.
pub(super) fn fill(
    plan: &mut Plan,
    image: &Place<'_>,
    time: Time,
    owner: Option<(u64, u64)>,
) -> io::Result<()> {
    for path in plan.missing_folders() {
        let mut item = Item::folder(path.clone(), 0o755, time);
        match image.stat(&path)? {
            Some(found) => {
                item.entry.mode = found.mode;
                (item.entry.uid, item.entry.gid) = (found.uid, found.gid);
                item.entry.time = found.time;
            }
            None => (item.entry.uid, item.entry.gid) = owner.unwrap_or((0, 0)),
        }
        plan.put(item);
    }
    Ok(())
}

/// The last part of a path of the machine.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
