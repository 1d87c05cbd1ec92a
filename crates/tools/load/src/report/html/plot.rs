//! The frame of a chart: title, legend, axes with units, grid; and the lines, areas and bars in it.
//! It knows nothing of what is measured.

use crate::report::numbers::as_f64;

use super::{
    markup::{Attributes, Markup, Px, path},
    scale::Scale,
};

/// Size of a chart in its own units; the page scales it.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 250.0;
/// Around the field: room for the labels.
const LEFT: f64 = 78.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 42.0;
/// Height of a row in a chart of rows.
const ROW: f64 = 30.0;
/// Room for the names of rows.
const LEFT_OF_ROWS: f64 = 190.0;

/// An axis: its scale, what it counts, and how its values are printed.
#[derive(Clone)]
pub(crate) struct Axis {
    pub(crate) scale: Scale,
    pub(crate) name: &'static str,
    pub(crate) print: fn(f64) -> String,
}

/// A kind of mark in a chart: what it is called, and the class that gives it its looks.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) class: &'static str,
    pub(crate) name: String,
}

/// What a chart is called and what it says, for those who see it and those who do not.
pub(crate) struct Caption<'of> {
    /// Unique on the page.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) text: &'of str,
}

/// A chart being drawn.
pub(crate) struct Plot<'page> {
    page: &'page mut Markup,
    x: Scale,
    y: Scale,
    left: f64,
    width: f64,
    height: f64,
}

/// A range on a row: from the median to a high percentile, and the maximum.
pub(crate) struct Range {
    pub(crate) name: String,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) max: f64,
    /// The same in words.
    pub(crate) words: String,
}

/// A chart with two axes.
pub(crate) fn chart(
    page: &mut Markup,
    caption: &Caption<'_>,
    keys: &[Key],
    (x, y): (&Axis, &Axis),
    draw: impl FnOnce(&mut Plot<'_>),
) {
    let field = Field { left: LEFT, height: HEIGHT };
    figure(page, caption, keys, HEIGHT + TOP + BOTTOM, |page| {
        field.grid(page, x, Some(y));
        let width = WIDTH - LEFT - RIGHT;
        let (x, y) = (x.scale, y.scale);
        draw(&mut Plot { page, x, y, left: LEFT, width, height: HEIGHT });
    });
}

/// A chart of ranges, one in a row, on one axis.
pub(crate) fn ranges(
    page: &mut Markup,
    caption: &Caption<'_>,
    keys: &[Key],
    x: &Axis,
    ranges: &[Range],
) {
    let height = as_f64(ranges.len() as u64) * ROW;
    let field = Field { left: LEFT_OF_ROWS, height };
    figure(page, caption, keys, height + TOP + BOTTOM, |page| {
        field.grid(page, x, None);
        let width = WIDTH - LEFT_OF_ROWS - RIGHT;
        let place = |value: f64| x.scale.place(value).mul_add(width, LEFT_OF_ROWS);
        for (row, range) in (0..).zip(ranges) {
            let middle = as_f64(row).mul_add(ROW, TOP + ROW / 2.0);
            let (from, to, max) = (place(range.from), place(range.to), place(range.max));
            page.element("g", &[], |page| {
                page.leaf("title", &[], &range.words);
                let name = Px(LEFT_OF_ROWS - 12.0);
                let baseline = Px(middle + 4.0);
                let attributes: Attributes<'_> =
                    &[("class", &"name"), ("x", &name), ("y", &baseline)];
                page.leaf("text", attributes, &range.name);
                let line = path([Some((to, middle)), Some((max, middle))]);
                page.empty("path", &[("class", &"line whisker"), ("d", &line)]);
                let (x, y) = (Px(from), Px(middle - 7.0));
                let (width, height) = (Px((to - from).max(3.0)), Px(14.0));
                let box_: Attributes<'_> = &[
                    ("class", &"box"),
                    ("x", &x),
                    ("y", &y),
                    ("width", &width),
                    ("height", &height),
                    ("rx", &2),
                ];
                page.empty("rect", box_);
                let tick = path([Some((max, middle - 6.0)), Some((max, middle + 6.0))]);
                page.empty("path", &[("class", &"line max"), ("d", &tick)]);
            });
        }
    });
}

/// A figure with its caption, legend and drawing.
fn figure(
    page: &mut Markup,
    caption: &Caption<'_>,
    keys: &[Key],
    height: f64,
    draw: impl FnOnce(&mut Markup),
) {
    page.element("figure", &[], |page| {
        page.element("figcaption", &[], |page| {
            page.leaf("h2", &[], caption.title);
            page.leaf("p", &[], caption.text);
            if !keys.is_empty() {
                page.element("p", &[("class", &"legend")], |page| {
                    keys.iter().for_each(|it| legend(page, it));
                });
            }
        });
        let (title, text) = (format!("{}-title", caption.id), format!("{}-text", caption.id));
        let attributes: Attributes<'_> = &[
            ("viewBox", &format!("0 0 {WIDTH} {}", Px(height))),
            ("role", &"img"),
            ("aria-labelledby", &format!("{title} {text}")),
        ];
        page.element("svg", attributes, |page| {
            page.leaf("title", &[("id", &title)], caption.title);
            page.leaf("desc", &[("id", &text)], caption.text);
            draw(page);
        });
    });
}

/// A sample of a mark and its name.
fn legend(page: &mut Markup, key: &Key) {
    page.element("span", &[], |page| {
        let sample: Attributes<'_> =
            &[("viewBox", &"0 0 26 10"), ("class", &"sample"), ("aria-hidden", &"true")];
        page.element("svg", sample, |page| match key.class.starts_with("line") {
            true => page.empty("path", &[("class", &key.class), ("d", &"M2 5H24")]),
            false => {
                let area: Attributes<'_> =
                    &[("class", &key.class), ("width", &26), ("height", &10), ("rx", &2)];
                page.empty("rect", area);
            }
        });
        page.text(&key.name);
    });
}

/// Where the drawing is, without what is drawn.
struct Field {
    left: f64,
    height: f64,
}

impl Field {
    /// Grid, ticks and the names of the axes.
    fn grid(&self, page: &mut Markup, x: &Axis, y: Option<&Axis>) {
        let (left, right) = (self.left, WIDTH - RIGHT);
        let bottom = TOP + self.height;
        for tick in x.scale.ticks() {
            let at = x.scale.place(tick).mul_add(right - left, left);
            let line = path([Some((at, TOP)), Some((at, bottom))]);
            page.empty("path", &[("class", &"grid"), ("d", &line)]);
            let (x_of, y_of) = (Px(at), Px(bottom + 17.0));
            let label: Attributes<'_> = &[("class", &"tick below"), ("x", &x_of), ("y", &y_of)];
            page.leaf("text", label, &(x.print)(tick));
        }
        let (x_of, y_of) = (Px(right), Px(bottom + 35.0));
        page.leaf("text", &[("class", &"axis end"), ("x", &x_of), ("y", &y_of)], x.name);
        let Some(y) = y else {
            return;
        };
        for tick in y.scale.ticks() {
            let at = bottom - y.scale.place(tick) * self.height;
            let line = path([Some((left, at)), Some((right, at))]);
            page.empty("path", &[("class", &"grid"), ("d", &line)]);
            let (x_of, y_of) = (Px(left - 8.0), Px(at + 4.0));
            let label: Attributes<'_> = &[("class", &"tick beside"), ("x", &x_of), ("y", &y_of)];
            page.leaf("text", label, &(y.print)(tick));
        }
        page.leaf("text", &[("class", &"axis"), ("x", &4), ("y", &Px(TOP - 11.0))], y.name);
    }
}

impl Plot<'_> {
    /// A line through points; it breaks where there is none.
    pub(crate) fn line(
        &mut self,
        class: &'static str,
        points: impl IntoIterator<Item = Option<(f64, f64)>>,
    ) {
        let path = path(points.into_iter().map(|it| it.map(|(x, y)| (self.x(x), self.y(y)))));
        self.page.empty("path", &[("class", &class), ("d", &path)]);
    }

    /// The area below points.
    pub(crate) fn area(&mut self, class: &'static str, points: &[(f64, f64)]) {
        let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else {
            return;
        };
        let ground = [(*last, 0.0), (*first, 0.0)];
        let around = points.iter().chain(&ground).map(|(x, y)| Some((self.x(*x), self.y(*y))));
        let path = path(around) + "Z";
        self.page.empty("path", &[("class", &class), ("d", &path)]);
    }

    /// A bar over a stretch of the x axis, from one value to another.
    pub(crate) fn bar(&mut self, class: &'static str, x: (f64, f64), y: (f64, f64)) {
        let (left, right) = (self.x(x.0), self.x(x.1));
        let (bottom, top) = (self.y(y.0), self.y(y.1));
        let bar: Attributes<'_> = &[
            ("class", &class),
            ("x", &Px(left)),
            ("y", &Px(top)),
            ("width", &Px((right - left).max(1.0))),
            ("height", &Px((bottom - top).max(1.0))),
        ];
        self.page.empty("rect", bar);
    }

    /// Words that a pointer over a stretch of the x axis shows.
    pub(crate) fn words(&mut self, x: (f64, f64), words: &str) {
        let (left, right) = (self.x(x.0), self.x(x.1));
        let stretch: Attributes<'_> = &[
            ("class", &"words"),
            ("x", &Px(left)),
            ("y", &Px(TOP)),
            ("width", &Px(right - left)),
            ("height", &Px(self.height)),
        ];
        self.page.element("rect", stretch, |page| page.leaf("title", &[], words));
    }

    fn x(&self, value: f64) -> f64 {
        self.x.place(value).mul_add(self.width, self.left)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + self.height - self.y.place(value) * self.height
    }
}
