//! What clients hear beside an answer: which warnings go into its headers, and how they are written
//! there. The rules are those of Kubernetes' recorder of warnings.

use http::HeaderValue;

use crate::limits::{WARNING_LETTERS_MAX, WARNINGS_LETTERS_MAX};

/// The warnings of one answer, each once, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Warnings(Vec<String>);

impl Warnings {
    /// Adds a text. What has control characters cannot be in a header; nobody but a client itself,
    /// which hears its own keys, brings such a text.
    pub(super) fn add(&mut self, text: &str) {
        if text.chars().any(char::is_control) {
            tracing::debug!(text, "a warning with control characters is not told");
        } else if !text.is_empty() && !self.0.iter().any(|it| it == text) {
            self.0.push(text.to_owned());
        }
    }

    /// The values of their headers.
    pub(super) fn headers(&self) -> Vec<HeaderValue> {
        let mut letters = 0;
        let too_many = self.0.iter().position(|it| {
            letters += it.chars().count();
            letters > WARNINGS_LETTERS_MAX
        });
        let Some(last_told) = too_many else {
            return self.0.iter().filter_map(|it| header(it)).collect();
        };
        let mut letters = 0;
        let mut headers = Vec::new();
        for (index, text) in self.0.iter().enumerate() {
            if last_told < index && letters >= WARNINGS_LETTERS_MAX {
                break;
            }
            let cut: String = text.chars().take(WARNING_LETTERS_MAX).collect();
            letters += cut.chars().count();
            headers.extend(header(&cut));
        }
        headers
    }
}

/// `299 - "…"`. Letters beyond ASCII stay as they are.
fn header(text: &str) -> Option<HeaderValue> {
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(texts: &[String]) -> Vec<String> {
        let mut warnings = Warnings::default();
        texts.iter().for_each(|it| warnings.add(it));
        let headers = warnings.headers();
        let text = |it: &HeaderValue| String::from_utf8(it.as_bytes().to_vec()).unwrap();
        headers.iter().map(text).collect()
    }

    #[test]
    fn each_is_quoted_and_told_once() {
        let texts = ["a \"b\" \\c", "größer", "two\nlines", "", "größer"].map(str::to_owned);
        assert_eq!(told(&texts), [r#"299 - "a \"b\" \\c""#, "299 - \"größer\""]);
    }

    #[test]
    fn too_many_are_cut_and_then_left_out() {
        let numbered = |letters: usize| move |it: usize| format!("{it:0letters$}");
        let exactly: Vec<_> = (0..4).map(numbered(1024)).collect();
        assert_eq!(told(&exactly).concat().len(), 4 * (1024 + r#"299 - """#.len()));
        let more: Vec<_> = (0..5).map(numbered(1024)).collect();
        assert_eq!(told(&more).len(), 5);
        assert!(told(&more).iter().all(|it| it.len() == 256 + r#"299 - """#.len()));
        let many: Vec<_> = (0..100).map(numbered(300)).collect();
        assert_eq!(told(&many).len(), 16);
    }

    proptest! {
        #[test]
        fn headers_are_bounded(texts in prop::collection::vec(".{0,9}|[a-zé\"]{0,600}", 0..60)) {
            let told = told(&texts);
            let letters: usize = told.iter().map(|it| it.chars().count() - r#"299 - """#.len()).sum();
            // Escapes double a letter, and the last one may go beyond.
            prop_assert!(letters <= 2 * (WARNINGS_LETTERS_MAX + WARNING_LETTERS_MAX), "{letters}");
            prop_assert!(told.len() <= texts.len());
        }
    }
}
