//! Changing the character set of a body: between two sets of one byte each, or to and from UTF-8.
//!
//! As in nginx: ASCII stays as it is on the way from UTF-8, a character that the other set does not have becomes a
//! reference such as `&#8364;`, and a byte that is no UTF-8 becomes `?`.

use std::sync::Arc;

use super::{BodyFilter, FilterFailure, Progress, Signal};

/// The longest character of a map, in bytes: maps reach up to U+FFFF.
pub const LONGEST_CHARACTER: usize = 3;

/// One character in UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Character {
    bytes: [u8; LONGEST_CHARACTER],
    length: u8,
}

impl Character {
    /// The bytes of one character; `None` if they are too many or none.
    pub fn new(text: &[u8]) -> Option<Character> {
        let mut bytes = [0; LONGEST_CHARACTER];
        bytes.get_mut(..text.len()).filter(|bytes| !bytes.is_empty())?.copy_from_slice(text);
        Some(Character { bytes, length: text.len() as u8 })
    }

    /// A character of ASCII.
    pub fn of_ascii(byte: u8) -> Character {
        debug_assert!(byte.is_ascii());
        Character { bytes: [byte, 0, 0], length: 1 }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Bytes of one set by code points below 0x10000 that UTF-8 names.
#[derive(Clone, Debug, Default)]
pub struct ByCodePoint {
    pages: Vec<Option<Box<[u8; 256]>>>,
}

impl ByCodePoint {
    /// Makes a code point a byte of the set; 0 takes it out.
    pub fn insert(&mut self, code_point: u16, byte: u8) {
        let [page, place] = code_point.to_be_bytes().map(usize::from);
        self.pages.resize_with(256, || None);
        self.pages[page].get_or_insert_with(|| Box::new([0; 256]))[place] = byte;
    }

    fn get(&self, code_point: u32) -> Option<u8> {
        let [page, place] = u16::try_from(code_point).ok()?.to_be_bytes().map(usize::from);
        let byte = self.pages.get(page)?.as_ref()?[place];
        (byte != 0).then_some(byte)
    }
}

/// From which set to which.
#[derive(Clone, Debug)]
pub enum Recoding {
    /// Between two sets of one byte each.
    Bytes(Arc<[u8; 256]>),
    /// From a set of one byte to UTF-8.
    ToUtf8(Arc<[Character; 256]>),
    /// From UTF-8 to a set of one byte.
    FromUtf8(Arc<ByCodePoint>),
}

impl Recoding {
    /// Whether a body is as long behind as before.
    pub fn keeps_length(&self) -> bool {
        matches!(self, Recoding::Bytes(_))
    }
}

/// See the module's documentation.
pub struct Recode {
    recoding: Recoding,
    /// Output that found no room yet; the longest is `&#1114111;`.
    pending: Vec<u8>,
    pending_sent: usize,
    /// The beginning of a character whose other bytes did not come yet.
    begun: Vec<u8>,
}

impl Recode {
    /// A filter at the beginning of a body.
    pub fn new(recoding: Recoding) -> Recode {
        Recode { recoding, pending: Vec::new(), pending_sent: 0, begun: Vec::new() }
    }

    /// Puts out what is pending; whether all of it is out.
    fn send_pending(&mut self, out: &mut Vec<u8>, end: usize) -> bool {
        let rest = &self.pending[self.pending_sent..];
        let count = rest.len().min(end - out.len());
        out.extend_from_slice(&rest[..count]);
        self.pending_sent += count;
        if self.pending_sent < self.pending.len() {
            return false;
        }
        self.pending.clear();
        self.pending_sent = 0;
        true
    }

    /// Takes one byte of UTF-8 that is not ASCII, or that follows such a one.
    fn take_utf8(&mut self, map: &ByCodePoint, byte: u8) {
        self.begun.push(byte);
        match decode(&self.begun) {
            Decoded::Begun => {}
            Decoded::Character(code_point) => {
                self.begun.clear();
                match map.get(code_point) {
                    Some(byte) => self.pending.push(byte),
                    None => self.pending.extend_from_slice(format!("&#{code_point};").as_bytes()),
                }
            }
            Decoded::Invalid => {
                // The byte that broke the character off begins the next one, unless it was the first.
                let last = self.begun.pop().filter(|_| !self.begun.is_empty());
                self.begun.clear();
                self.pending.push(b'?');
                match last {
                    Some(ascii) if ascii < 0x80 => self.pending.push(ascii),
                    Some(other) => self.take_utf8(map, other),
                    None => {}
                }
            }
        }
    }
}

/// What some bytes are in UTF-8.
enum Decoded {
    Begun,
    Character(u32),
    Invalid,
}

fn decode(bytes: &[u8]) -> Decoded {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            text.chars().next().map_or(Decoded::Begun, |character| Decoded::Character(character.into()))
        }
        Err(error) if error.error_len().is_none() => Decoded::Begun,
        Err(_) => Decoded::Invalid,
    }
}

impl BodyFilter for Recode {
    fn filter(
        &mut self,
        input: &mut &[u8],
        signal: Signal,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Progress, FilterFailure> {
        let end = out.len() + room;
        let recoding = self.recoding.clone();
        loop {
            if !self.send_pending(out, end) {
                return Ok(Progress::Full);
            }
            if input.is_empty() {
                if signal != Signal::Last {
                    return Ok(Progress::Starved);
                }
                if self.begun.is_empty() {
                    return Ok(Progress::Done);
                }
                self.begun.clear();
                self.pending.push(b'?');
                continue;
            }
            let free = end - out.len();
            if free == 0 {
                return Ok(Progress::Full);
            }
            match &recoding {
                Recoding::Bytes(table) => {
                    let count = input.len().min(free);
                    out.extend(input[..count].iter().map(|byte| table[usize::from(*byte)]));
                    *input = &input[count..];
                }
                Recoding::ToUtf8(table) => {
                    // Whole characters as long as the longest would fit; the last ones by way of `pending`.
                    let count = input.len().min(free / LONGEST_CHARACTER).max(1);
                    for byte in &input[..count] {
                        let character = table[usize::from(*byte)].bytes();
                        if character.len() <= end - out.len() {
                            out.extend_from_slice(character);
                        } else {
                            self.pending.extend_from_slice(character);
                        }
                    }
                    *input = &input[count..];
                }
                Recoding::FromUtf8(map) => {
                    if self.begun.is_empty() {
                        let ascii = input.iter().take(free).take_while(|byte| **byte < 0x80).count();
                        out.extend_from_slice(&input[..ascii]);
                        *input = &input[ascii..];
                        if ascii > 0 {
                            continue;
                        }
                    }
                    self.take_utf8(map, input[0]);
                    *input = &input[1..];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{Plan, holds_for_every_split, run_whole};
    use super::*;
    use proptest::prelude::*;

    fn to_utf8() -> Recoding {
        let mut table = [Character::new(b"?").unwrap(); 256];
        for byte in 0..128u8 {
            table[usize::from(byte)] = Character::new(&[byte]).unwrap();
        }
        table[0xe1] = Character::new("б".as_bytes()).unwrap();
        table[0x80] = Character::new("€".as_bytes()).unwrap();
        Recoding::ToUtf8(Arc::new(table))
    }

    fn from_utf8() -> Recoding {
        let mut map = ByCodePoint::default();
        map.insert('б' as u16, 0xe1);
        map.insert('€' as u16, 0x80);
        Recoding::FromUtf8(Arc::new(map))
    }

    fn recoded(recoding: Recoding, text: &[u8]) -> Vec<u8> {
        run_whole(&mut Recode::new(recoding), text)
    }

    #[test]
    fn characters_change_their_bytes() {
        assert_eq!(recoded(to_utf8(), b"a\xe1\x80\xff"), "aб€?".as_bytes());
        assert_eq!(recoded(from_utf8(), "aб€".as_bytes()), b"a\xe1\x80");
        let mut swapped = std::array::from_fn(|byte| byte as u8);
        swapped.swap(1, 2);
        assert_eq!(recoded(Recoding::Bytes(Arc::new(swapped)), b"\x01\x02a"), b"\x02\x01a");
    }

    #[test]
    fn what_has_no_place_in_the_other_set_becomes_a_reference_or_a_question_mark() {
        assert_eq!(recoded(from_utf8(), "ж😀".as_bytes()), b"&#1078;&#128512;");
        assert_eq!(recoded(from_utf8(), b"a\xffb\xd0"), b"a?b?");
        assert_eq!(recoded(from_utf8(), b"\xd0x"), b"?x");
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(
            text in proptest::collection::vec(
                prop_oneof![Just("a".as_bytes().to_vec()), Just("б€😀ж".as_bytes().to_vec()), any::<u8>().prop_map(|byte| vec![byte])],
                0..100,
            ),
            plan in Plan::any(),
            to in any::<bool>(),
        ) {
            let recoding = if to { to_utf8() } else { from_utf8() };
            holds_for_every_split(&text.concat(), &plan, || Recode::new(recoding.clone()));
        }
    }
}
