//! The stores of Podman (containers/storage), of Docker and of containerd, read only. The first two keep a
//! layer as a folder, and beside it what of its tar is not the content of files (tar-split); what Docker
//! keeps with containerd is in `containerd`.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, BufRead as _, BufReader, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Error, Into, containerd, docker::assemble};
use crate::{
    Descriptor, Digest, Event, ImageConfig, Reference,
    spec::{DOCUMENT_BYTES_MAX, LAYERS_MAX, media},
    store::Blob,
};

/// Largest list of images or layers: tens of thousands of them.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// Longest line of a tar-split: padding of a tar, as text.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// The store of another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// Of Podman, Buildah, CRI-O and Skopeo: `/var/lib/containers/storage`, or
    /// `~/.local/share/containers/storage`. With the driver `overlay`.
    Podman(PathBuf),
    /// Of Docker, `/var/lib/docker`, with the driver `overlay2` or with containerd.
    Docker(PathBuf),
    /// Of containerd, `/var/lib/containerd`: what nerdctl, Kubernetes and Docker keep there.
    Containerd(PathBuf),
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Podman(root) => write!(f, "podman at `{}`", root.display()),
            Self::Docker(root) => write!(f, "docker at `{}`", root.display()),
            Self::Containerd(root) => write!(f, "containerd at `{}`", root.display()),
        }
    }
}

/// A layer: what it must be, its folder, and the rest of its tar.
struct Part {
    diff_id: Digest,
    folder: PathBuf,
    split: PathBuf,
}

/// In `overlay-images/images.json`.
#[derive(Deserialize)]
struct PodmanImage {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    layer: String,
}

/// In `overlay-layers/layers.json`.
#[derive(Deserialize)]
struct PodmanLayer {
    id: String,
    #[serde(default)]
    parent: String,
}

/// `image/overlay2/repositories.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerNames {
    repositories: BTreeMap<String, BTreeMap<String, Digest>>,
}

impl Local {
    /// Puts an image into the store.
    pub(super) fn image(&self, into: Into<'_>, image: &Reference) -> Result<Descriptor, Error> {
        let (bytes, place) = match self {
            Self::Podman(root) => self.podman(root, image)?,
            Self::Docker(root) => match docker(root, image)? {
                Some(found) => found,
                None => return self.dockers_containerd(into, root, image),
            },
            Self::Containerd(root) => {
                let found = containerd::image(into, root, None, image)?;
                return found.ok_or_else(|| self.not_there(image));
            }
        };
        let name = image.to_string();
        let malformed = |reason: String| Error::Malformed { part: name.clone(), reason };
        let config: ImageConfig =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let diff_ids = config.rootfs.diff_ids;
        let parts = place(&diff_ids)?;
        if parts.len() != diff_ids.len() || parts.len() > LAYERS_MAX {
            let (parts, ids) = (parts.len(), diff_ids.len());
            return Err(malformed(format!("{ids} layers, and {parts} are there")));
        }
        let layers: Result<Vec<Descriptor>, Error> =
            parts.iter().map(|it| layer(into, it)).collect();
        assemble(into, &name, &bytes, layers?)
    }

    fn not_there(&self, image: &Reference) -> Error {
        Error::NotThere { name: image.to_string(), local: self.clone() }
    }

    /// The configuration, and where layers are.
    fn podman(&self, root: &Path, image: &Reference) -> Result<(Vec<u8>, Place), Error> {
        let images: Option<Vec<PodmanImage>> = read_json(&root.join("overlay-images/images.json"))?;
        // What was built or loaded without a registry is `localhost/NAME` there.
        let wanted = [image.to_string(), format!("localhost/{}", image.familiar())];
        let named = |it: &&PodmanImage| it.names.iter().flatten().any(|it| wanted.contains(it));
        let images = images.unwrap_or_default();
        let found = images.iter().find(named).ok_or_else(|| self.not_there(image))?;
        // A file whose name is not plain has it in base64.
        let key = format!("={}", STANDARD.encode(format!("sha256:{}", found.id)));
        let config = root.join("overlay-images").join(&found.id).join(key);
        let bytes = read(&config, DOCUMENT_BYTES_MAX)?;
        let bytes = bytes.ok_or_else(|| Error::Missing(config.display().to_string()))?;
        let layers: Option<Vec<PodmanLayer>> = read_json(&root.join("overlay-layers/layers.json"))?;
        let parents: BTreeMap<String, String> =
            layers.unwrap_or_default().into_iter().map(|it| (it.id, it.parent)).collect();
        let (root, mut next) = (root.to_owned(), found.layer.clone());
        let mut chain = Vec::new();
        while !next.is_empty() && chain.len() <= LAYERS_MAX {
            let parent = parents.get(&next).ok_or_else(|| Error::Missing(next.clone()))?;
            chain.push(std::mem::replace(&mut next, parent.clone()));
        }
        chain.reverse();
        let place = move |ids: &[Digest]| -> Result<Vec<Part>, Error> {
            let part = |(id, diff_id): (&String, &Digest)| Part {
                diff_id: *diff_id,
                folder: root.join("overlay").join(id).join("diff"),
                split: root.join("overlay-layers").join(format!("{id}.tar-split.gz")),
            };
            Ok(chain.iter().zip(ids).map(part).collect())
        };
        Ok((bytes, Box::new(place)))
    }

    /// What Docker keeps with containerd: one that it starts itself, or that of the machine.
    fn dockers_containerd(
        &self,
        into: Into<'_>,
        root: &Path,
        image: &Reference,
    ) -> Result<Descriptor, Error> {
        let homes = [root.join("containerd/daemon"), root.with_file_name("containerd")];
        for home in homes.iter().filter(|it| containerd::is_there(it)) {
            if let Some(found) = containerd::image(into, home, Some(containerd::OF_DOCKER), image)?
            {
                return Ok(found);
            }
        }
        Err(self.not_there(image))
    }
}

/// Finds the layers of these diff ids.
type Place = Box<dyn Fn(&[Digest]) -> Result<Vec<Part>, Error>>;

/// The configuration, and where layers are, of what Docker keeps itself.
fn docker(root: &Path, image: &Reference) -> Result<Option<(Vec<u8>, Place)>, Error> {
    let root = root.to_owned();
    let data = root.join("image/overlay2");
    let names: Option<DockerNames> = read_json(&data.join("repositories.json"))?;
    let repositories = names.map(|it| it.repositories).unwrap_or_default();
    // Docker writes names as people do.
    let wanted = image.familiar();
    let Some(id) = repositories.values().find_map(|it| it.get(&wanted)) else {
        return Ok(None);
    };
    let config = data.join("imagedb/content/sha256").join(id.hex());
    let bytes = read(&config, DOCUMENT_BYTES_MAX)?;
    let bytes = bytes.ok_or_else(|| Error::Missing(config.display().to_string()))?;
    let place = move |ids: &[Digest]| -> Result<Vec<Part>, Error> {
        let mut chain: Option<Digest> = None;
        let mut parts = Vec::new();
        for diff_id in ids {
            // A layer upon others is known by all of them.
            let all = match chain {
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
                None => *diff_id,
            };
            chain = Some(all);
            let home = data.join("layerdb/sha256").join(all.hex());
            let cache = read(&home.join("cache-id"), DOCUMENT_BYTES_MAX)?;
            let cache = cache.and_then(|it| String::from_utf8(it).ok());
            let cache = cache.filter(|it| it.bytes().all(|it| it.is_ascii_alphanumeric()));
            let cache = cache.ok_or_else(|| Error::Missing(home.display().to_string()))?;
            let folder = root.join("overlay2").join(cache).join("diff");
            let split = home.join("tar-split.json.gz");
            parts.push(Part { diff_id: *diff_id, folder, split });
        }
        Ok(parts)
    };
    Ok(Some((bytes, Box::new(place))))
}

/// Puts a layer into the store: its tar, as it was.
fn layer(into: Into<'_>, part: &Part) -> Result<Descriptor, Error> {
    into.lease.hold([part.diff_id])?;
    if let Some(size) = into.store.blob_size(&part.diff_id)? {
        (into.options.progress)(Event::Present { part: part.diff_id.to_string() });
        return Ok(Descriptor::new(media::LAYER, part.diff_id, size));
    }
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let split = fs::File::open(&part.split).map_err(read(&part.split))?;
    let folder = fs::File::open(&part.folder).map_err(read(&part.folder))?;
    let mut tar = Tar {
        lines: BufReader::new(MultiGzDecoder::new(split)),
        folder: folder.into(),
        now: Box::new(io::empty()),
    };
    let Blob { digest, size } = into.ingest(&part.diff_id.to_string(), None, &mut tar)?;
    if digest != part.diff_id {
        let (part, expected) = (part.folder.display().to_string(), part.diff_id);
        return Err(Error::Layer { part, expected, found: digest });
    }
    Ok(Descriptor::new(media::LAYER, digest, size))
}

/// A line of a tar-split.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: String,
    /// Instead of a name that is no text.
    name_raw: Option<String>,
    #[serde(default)]
    size: u64,
    payload: Option<String>,
}

/// The content of a file stands here.
const FILE: u8 = 1;
/// The payload is what stands here.
const SEGMENT: u8 = 2;

/// A tar that is put together while it is read.
struct Tar {
    lines: BufReader<MultiGzDecoder<fs::File>>,
    folder: OwnedFd,
    now: Box<dyn Read + Send>,
}

impl Tar {
    /// Goes on to the next line; whether there was one.
    fn next(&mut self) -> io::Result<bool> {
        let mut line = String::new();
        (&mut self.lines).take(LINE_BYTES_MAX).read_line(&mut line)?;
        if line.is_empty() {
            return Ok(false);
        }
        let line: Line = serde_json::from_str(&line)?;
        match line.kind {
            SEGMENT => {
                let bytes = STANDARD.decode(line.payload.unwrap_or_default());
                self.now = Box::new(io::Cursor::new(bytes.map_err(io::Error::other)?));
            }
            FILE if line.size > 0 => {
                let raw = line.name_raw.map(|it| STANDARD.decode(it)).transpose();
                let name = raw.map_err(io::Error::other)?.unwrap_or_else(|| line.name.into_bytes());
                self.now = Box::new(Exact { file: self.open(&name)?, rest: line.size });
            }
            _ => {}
        }
        Ok(true)
    }

    /// Opens a file of the layer, and nothing that a link leads to.
    fn open(&self, name: &[u8]) -> io::Result<fs::File> {
        use std::os::unix::ffi::OsStrExt as _;
        let path = Path::new(std::ffi::OsStr::from_bytes(name));
        let path = path.strip_prefix("/").unwrap_or(path);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = fs::File::from(openat2(&self.folder, path, flags, Mode::empty(), resolve)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(format!("`{}` is no file", path.display())));
        }
        Ok(file)
    }
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.now.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            if !self.next()? {
                return Ok(0);
            }
        }
    }
}

/// So many bytes of a file, neither more nor less.
struct Exact {
    file: fs::File,
    rest: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&self.file).take(self.rest).read(buffer)?;
        if count == 0 && self.rest > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.rest -= count as u64;
        Ok(count)
    }
}

/// A file of a known largest size; nothing if it is not there.
fn read(path: &Path, max: u64) -> Result<Option<Vec<u8>>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        let reason = format!("more than {max} bytes");
        return Err(Error::Malformed { part: path.display().to_string(), reason });
    }
    Ok(Some(bytes))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let Some(bytes) = read(path, LIST_BYTES_MAX)? else {
        return Ok(None);
    };
    let malformed = |error: serde_json::Error| Error::Malformed {
        part: path.display().to_string(),
        reason: error.to_string(),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(malformed)
}
