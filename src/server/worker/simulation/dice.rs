//! The numbers of a seed, and the text that bodies are made of.

use std::sync::OnceLock;

/// Bytes of the text that bodies are pieces of.
const TEXT_BYTES: usize = 300_000;
/// The longest body, in bytes.
pub const LONGEST_BODY: usize = 100_000;

/// SplitMix64: the same seed, the same numbers.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// A body of a few bytes mostly, of more than a socket holds now and then.
    pub fn body(&mut self) -> &'static [u8] {
        let length = match self.below(32) {
            0..6 => 0,
            6..20 => self.below(200),
            20..28 => self.below(5_000),
            28..31 => self.below(30_000),
            _ => self.below(LONGEST_BODY),
        };
        let start = self.below(TEXT_BYTES - LONGEST_BODY);
        &text()[start..start + length]
    }
}

/// The contents of the static files.
pub fn files() -> [&'static [u8]; 4] {
    [0..0, 0..100, 1_000..6_000, 10_000..LONGEST_BODY].map(|range| &text()[range])
}

/// Words and numbers: no two pieces of some length are the same, and it shrinks when it is compressed.
fn text() -> &'static [u8] {
    static TEXT: OnceLock<Vec<u8>> = OnceLock::new();
    TEXT.get_or_init(|| {
        let (mut dice, mut text) = (Dice(7), Vec::with_capacity(TEXT_BYTES + 16));
        while text.len() < TEXT_BYTES {
            let word = dice.pick(&["river ", "reed ", "stone\n", "ford ", "r", "re", "weir "]);
            text.extend_from_slice(word.as_bytes());
            if dice.one_in(3) {
                text.extend_from_slice(dice.below(10_000).to_string().as_bytes());
            }
        }
        text.truncate(TEXT_BYTES);
        text
    })
}
