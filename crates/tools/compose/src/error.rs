//! What can be wrong with a file, and where.

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct Error {
    /// The file, as the user named it.
    pub file: String,
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A line of a Procfile that has no colon.
    #[error("`{0}` is not `NAME: COMMAND`")]
    NoProcess(String),
    /// A process name with a character that Procfiles do not allow.
    #[error("process name `{0}` holds something else than letters, digits, `_` and `-`")]
    NameCharacters(String),
    /// A process name of which no object can be called.
    #[error(
        "process name `{0}` begins or ends with `_` or `-`, which names in Kubernetes must not"
    )]
    NameEnds(String),
    /// A process name of which no object can be called.
    #[error(
        "process name `{name}` is longer than {max} characters, as names in Kubernetes must be"
    )]
    NameLength {
        /// The name.
        name: String,
        /// How long it may be.
        max: usize,
    },
    /// A process without anything to run.
    #[error("process `{0}` has no command")]
    NoCommand(String),
    /// What no program can be given.
    #[error("a NUL byte cannot be given to a program")]
    NulByte,
    /// Two processes of one name, or whose names are the same in Kubernetes.
    #[error(
        "process `{name}` would be called `{label}` as the one of line {first}: rename one of them"
    )]
    Duplicate {
        /// The name.
        name: String,
        /// The name of its objects.
        label: String,
        /// The line of the other.
        first: u64,
    },
    /// A Procfile that starts nothing.
    #[error("no process: a Procfile has lines such as `web: ./server --port $PORT`")]
    Empty,
    /// More processes than there are ports.
    #[error("process `{name}` would get PORT {port}, and ports end at 65535: begin lower")]
    PortRange {
        /// The process.
        name: String,
        /// What it would get.
        port: u32,
    },
    /// A line of an environment file that is no variable.
    #[error("`{0}` is not `NAME=VALUE`")]
    NoVariable(String),
    /// A variable name that shells do not have.
    #[error("variable name `{0}` holds something else than letters, digits and `_`")]
    VariableName(String),
    /// A base port that is none.
    #[error("PORT is where ports are counted from, and `{0}` is no number from 1 to 65535")]
    BasePort(String),
}

impl Error {
    pub(crate) fn new(file: &str, line: u64, problem: Problem) -> Self {
        Self { file: file.to_owned(), line, problem }
    }
}

/// The lines of a text with their numbers, without the mark that some editors begin files with, and
/// without the ends that Windows' editors write.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // `lines` takes the end of Windows' lines off, too.
    (1..).zip(text.lines())
}

/// Whether a line says nothing: empty, or a comment.
pub(crate) fn is_blank(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}
