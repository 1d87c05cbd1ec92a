//! What an ELF file says of the files that it needs, and where the loader looks for them.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use elf::{
    ElfStream,
    abi::{DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, PT_INTERP, PT_LOAD},
    endian::AnyEndian,
};

/// Longest table of names of an ELF file that is read, in bytes: that of the largest libraries has
/// some hundred thousand.
const NAMES_BYTES_MAX: u64 = 64 << 20;

/// Longest first line of a script, as in the kernel (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE_MAX: u64 = 256;

/// What a file needs to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Needs {
    /// Other libraries and a loader.
    Elf(Elf),
    /// An interpreter, with its argument.
    Script { interpreter: String, argument: Option<String> },
    /// Nothing.
    Nothing,
}

/// The parts of an ELF file that the loader reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elf {
    /// Word size and machine: a library must have the same.
    pub(super) kind: (bool, u16),
    pub(super) loader: Option<String>,
    pub(super) needed: Vec<String>,
    /// Where libraries of this file, and those of what it needs, are looked for.
    pub(super) rpath: Vec<String>,
    /// Where libraries of this file alone are looked for.
    pub(super) runpath: Vec<String>,
}

/// What the file at `path` needs.
pub(super) fn needs(path: &Path) -> io::Result<Needs> {
    let mut file = fs::File::open(path)?;
    let mut first = Vec::new();
    (&mut file).take(SCRIPT_LINE_MAX).read_to_end(&mut first)?;
    if first.starts_with(b"\x7fELF") {
        return read(file).map(Needs::Elf);
    }
    let Some(line) = first.strip_prefix(b"#!") else { return Ok(Needs::Nothing) };
    let line = line.split(|it| *it == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    let (interpreter, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let argument = Some(argument.trim().to_owned()).filter(|it| !it.is_empty());
    Ok(Needs::Script { interpreter: interpreter.to_owned(), argument })
}

fn read(file: fs::File) -> io::Result<Elf> {
    let failed = |it| io::Error::new(io::ErrorKind::InvalidData, format!("bad ELF file: {it}"));
    let names = file.try_clone()?;
    let mut parsed = ElfStream::<AnyEndian, _>::open_stream(file).map_err(failed)?;
    let kind = (parsed.ehdr.class == elf::file::Class::ELF64, parsed.ehdr.e_machine);
    let segments = parsed.segments().clone();
    let text = |at: u64, size: u64| -> io::Result<Vec<u8>> {
        if NAMES_BYTES_MAX < size {
            return Err(failed(elf::ParseError::BadOffset(size)));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        names.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    };
    let loader = segments.iter().find(|it| it.p_type == PT_INTERP);
    let loader = loader.map(|it| text(it.p_offset, it.p_filesz)).transpose()?;
    let loader = loader.map(|it| until_nul(&it));
    let mut elf = Elf { kind, loader, needed: vec![], rpath: vec![], runpath: vec![] };
    let entries: Vec<(i64, u64)> = match parsed.dynamic().map_err(failed)? {
        Some(table) => table.iter().map(|it| (it.d_tag, it.d_val())).collect(),
        None => return Ok(elf),
    };
    let value = |tag| entries.iter().find(|it| it.0 == tag).map(|it| it.1);
    let (Some(address), Some(size)) = (value(DT_STRTAB), value(DT_STRSZ)) else { return Ok(elf) };
    // The table is named by where it is in memory.
    let holds = |it: &&elf::segment::ProgramHeader| {
        it.p_type == PT_LOAD && it.p_vaddr <= address && address - it.p_vaddr < it.p_filesz
    };
    let Some(segment) = segments.iter().find(holds) else { return Ok(elf) };
    let table = text(segment.p_offset + (address - segment.p_vaddr), size)?;
    for (tag, at) in &entries {
        let name = usize::try_from(*at).ok().and_then(|it| table.get(it..)).map(until_nul);
        let paths = |it: String| it.split(':').map(str::to_owned).collect();
        match (*tag, name) {
            (DT_NEEDED, Some(name)) => elf.needed.push(name),
            (DT_RPATH, Some(path)) => elf.rpath = paths(path),
            (DT_RUNPATH, Some(path)) => elf.runpath = paths(path),
            _ => {}
        }
    }
    Ok(elf)
}

fn until_nul(bytes: &[u8]) -> String {
    let text = bytes.split(|it| *it == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
