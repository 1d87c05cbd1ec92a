//! Small charts out of braille letters: two dots wide and four high each. Pure.

/// Dots of a braille letter: across and down.
const ACROSS: usize = 2;
const DOWN: usize = 4;
/// The letter without a dot.
const EMPTY: u32 = 0x2800;
/// Which bit is which dot, by row and column, as Unicode numbers them.
const BITS: [[u32; ACROSS]; DOWN] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

/// A field of dots, its origin at the bottom left.
#[derive(Clone, Debug)]
pub(crate) struct Dots {
    columns: usize,
    rows: usize,
    letters: Vec<u32>,
}

impl Dots {
    /// A field of so many letters, empty.
    pub(crate) fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows, letters: vec![EMPTY; columns * rows] }
    }

    /// Dots across.
    pub(crate) fn width(&self) -> usize {
        self.columns * ACROSS
    }

    /// Dots upwards.
    pub(crate) fn height(&self) -> usize {
        self.rows * DOWN
    }

    /// Sets a dot; outside the field nothing happens.
    pub(crate) fn set(&mut self, x: usize, y: usize) {
        if x >= self.width() || y >= self.height() {
            return;
        }
        let down = self.height() - 1 - y;
        let letter = self.letters.get_mut(down / DOWN * self.columns + x / ACROSS);
        let bit = BITS.get(down % DOWN).and_then(|it| it.get(x % ACROSS));
        if let (Some(letter), Some(bit)) = (letter, bit) {
            *letter |= bit;
        }
    }

    /// Sets all dots of a column from one height to another, both included.
    pub(crate) fn column(&mut self, x: usize, from: usize, to: usize) {
        for y in from..=to {
            self.set(x, y);
        }
    }

    /// The letters, row by row from the top; an empty one is a space, which every font has.
    pub(crate) fn rows(&self) -> impl Iterator<Item = String> {
        self.letters.chunks(self.columns.max(1)).map(|row| {
            let letter =
                |it: &u32| if *it == EMPTY { ' ' } else { char::from_u32(*it).unwrap_or(' ') };
            row.iter().map(letter).collect()
        })
    }
}

/// A round number that is not below `value`, and not far above it.
pub(crate) fn above(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0].map(|it| it * power);
    steps.into_iter().find(|it| *it >= value - value * 1e-9).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn dots_are_where_they_were_set() {
        let mut dots = Dots::new(4, 2);
        dots.column(0, 0, 7);
        dots.set(1, 0);
        dots.set(3, 7);
        dots.column(6, 2, 5);
        dots.set(8, 0);
        dots.set(0, 8);
        expect![[r#"
            ⡇⠈ ⡄
            ⣇  ⠃"#]]
        .assert_eq(&dots.rows().collect::<Vec<_>>().join("\n"));
    }
}
