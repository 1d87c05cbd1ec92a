//! What can be wrong with a kustomization, and where.

/// Why a kustomization cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: `{field}`: {problem}")]
pub struct Error {
    /// The file, named from the folder that was asked for.
    pub file: String,
    /// The field of that file.
    pub field: String,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

impl Error {
    pub(crate) fn new(file: &str, field: &str, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), field: field.to_owned(), problem: problem.into() }
    }
}
