//! Label and field selectors: parse, print, match.
//!
//! The grammar is that of `k8s.io/apimachinery/pkg/labels` and `…/fields`. Which fields of a kind
//! can be selected is not known here.

mod field;
mod label;

pub use self::{
    field::{FieldRequirement, FieldSelector},
    label::{LabelOperator, LabelRequirement, LabelSelector},
};

/// Why a selector could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);
