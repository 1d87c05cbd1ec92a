//! Writes elements, each closed by whoever opened it and all text escaped, so that a page is
//! well-formed whatever a target or a check is called. Forty lines do here what a template language
//! would.

use std::fmt::{self, Display, Write as _};

/// Attributes of an element.
pub(crate) type Attributes<'of> = &'of [(&'static str, &'of dyn Display)];

/// A page being written.
#[derive(Debug, Default)]
pub(crate) struct Markup {
    text: String,
}

/// A coordinate: a tenth of a pixel is finer than any screen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Px(pub(crate) f64);

impl Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.1}", self.0);
        f.write_str(text.strip_suffix(".0").unwrap_or(&text))
    }
}

impl Markup {
    /// An element with content.
    pub(crate) fn element(
        &mut self,
        name: &'static str,
        attributes: Attributes<'_>,
        content: impl FnOnce(&mut Self),
    ) {
        self.open(name, attributes, ">");
        content(self);
        self.text.push_str("</");
        self.text.push_str(name);
        self.text.push('>');
        self.text.push('\n');
    }

    /// An element with text.
    pub(crate) fn leaf(&mut self, name: &'static str, attributes: Attributes<'_>, text: &str) {
        self.element(name, attributes, |it| it.text(text));
    }

    /// An element without content.
    pub(crate) fn empty(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.open(name, attributes, "/>\n");
    }

    /// Text.
    pub(crate) fn text(&mut self, text: &str) {
        escape(&mut self.text, text);
    }

    /// A style sheet. It is ours and has no character that would need escaping.
    pub(crate) fn style(&mut self, sheet: &str) {
        self.element("style", &[], |it| it.text.push_str(sheet));
    }

    /// The document.
    pub(crate) fn finish(self) -> String {
        "<!DOCTYPE html>\n".to_owned() + &self.text
    }

    fn open(&mut self, name: &str, attributes: Attributes<'_>, end: &str) {
        self.text.push('<');
        self.text.push_str(name);
        for (name, value) in attributes {
            self.text.push(' ');
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(&mut self.text, &value.to_string());
            self.text.push('"');
        }
        self.text.push_str(end);
    }
}

/// Appends text so that it means itself, in content and in attributes.
fn escape(page: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\n' | '\t' => page.push(letter),
            // No document may have the others, not even escaped.
            it if it.is_control() => page.push(char::REPLACEMENT_CHARACTER),
            it => page.push(it),
        }
    }
}

/// A path through points; it breaks where there is none. A point alone is a dot, if the ends of the
/// line are round.
pub(crate) fn path(points: impl IntoIterator<Item = Option<(f64, f64)>>) -> String {
    let mut path = String::new();
    let mut is_down = false;
    for point in points {
        if let Some((x, y)) = point {
            let (x, y) = (Px(x), Px(y));
            // Writing to a string cannot fail.
            let _: fmt::Result = match is_down {
                true => write!(path, "L{x} {y}"),
                false => write!(path, "M{x} {y}h0"),
            };
        }
        is_down = point.is_some();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn text_means_itself() {
        let mut page = Markup::default();
        page.element("p", &[("title", &"a \"b\" & <c>")], |page| {
            page.text("1 < 2 & \u{1} >");
            page.empty("br", &[("width", &Px(2.0)), ("height", &Px(0.25))]);
        });
        expect![[r#"
            <!DOCTYPE html>
            <p title="a &quot;b&quot; &amp; &lt;c&gt;">1 &lt; 2 &amp; � &gt;<br width="2" height="0.2"/>
            </p>
        "#]].assert_eq(&page.finish());
    }

    #[test]
    fn paths_break_where_nothing_is() {
        let points = [Some((0.0, 1.0)), Some((1.0, 2.25)), None, Some((3.0, 4.0)), None];
        assert_eq!(path(points), "M0 1h0L1 2.2M3 4h0");
    }
}
