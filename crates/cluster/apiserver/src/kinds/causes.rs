//! What is wrong with an object, field by field, in the words of Kubernetes' `field.Error`.

use std::fmt::Write as _;

use serde_json::Value;

/// Kind of a [`Causes`] entry; the text is `StatusCause.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A field that must be there is absent or empty.
    Required,
    /// A value breaks a rule.
    Invalid,
    /// A value is not one of a fixed set.
    NotSupported,
    /// The field may not be set or changed here.
    Forbidden,
    /// A value that must be unique occurs twice.
    Duplicate,
    /// A value has too many bytes or characters.
    TooLong,
    /// A list has too many items.
    TooMany,
    /// A referenced value does not exist.
    NotFound,
}

impl Reason {
    /// Text of `StatusCause.reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Kind of finding.
    pub reason: Reason,
    /// Path of the field, such as `spec.containers[0].image`.
    pub field: String,
    /// Text without the field, such as `Required value: must be set`.
    pub message: String,
}

/// Findings about one object, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causes(Vec<Cause>);

impl Causes {
    /// Adds a finding with its full text (the helpers below word it as Kubernetes does).
    pub fn push(&mut self, reason: Reason, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Cause { reason, field: field.into(), message: message.into() });
    }

    /// `Required value[: detail]`.
    pub fn required(&mut self, field: impl Into<String>, detail: &str) {
        self.push(Reason::Required, field, with_detail("Required value", detail));
    }

    /// `Invalid value: <value>: <detail>`.
    pub fn invalid(&mut self, field: impl Into<String>, value: &Value, detail: &str) {
        let head = format!("Invalid value: {value}");
        self.push(Reason::Invalid, field, with_detail(&head, detail));
    }

    /// `Unsupported value: <value>: supported values: "a", "b"`.
    pub fn not_supported(&mut self, field: impl Into<String>, value: &Value, supported: &[&str]) {
        let mut message = format!("Unsupported value: {value}: supported values: ");
        for (index, it) in supported.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(message, "{comma}\"{it}\"");
        }
        self.push(Reason::NotSupported, field, message);
    }

    /// `Forbidden: <detail>`.
    pub fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.push(Reason::Forbidden, field, with_detail("Forbidden", detail));
    }

    /// `Duplicate value: <value>`.
    pub fn duplicate(&mut self, field: impl Into<String>, value: &Value) {
        self.push(Reason::Duplicate, field, format!("Duplicate value: {value}"));
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The findings in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Cause] {
        &self.0
    }
}

fn with_detail(head: &str, detail: &str) -> String {
    if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") }
}
