//! Field lines to field blocks.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use crate::message::FieldName;
use crate::proto::h2::huffman;

use super::static_table::{self, STATIC_TABLE, StaticMatch};
use super::{DynamicTable, ENTRY_OVERHEAD, TABLE_SIZE};

/// How a field may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// It goes into the dynamic table when it comes for the second time: what never comes again (a length, a location)
    /// would only drive out what does.
    Repeated,
    /// It is never put into a table, here nor by anyone who passes it on: its value is a secret that must not be found out
    /// by its size (RFC 7541 section 7.1.3).
    Never,
}

/// How many fields that came once are remembered, by their hash.
const REMEMBERED: usize = 32;

/// The sending side's tables.
#[derive(Debug)]
pub struct Encoder {
    table: DynamicTable,
    /// Least table size that was set since the last block, and whether the peer has to be told (RFC 7541 section 4.2).
    announce: Option<usize>,
    /// Hashes of the latest fields that came once, and which of them goes next.
    seen: [u32; REMEMBERED],
    oldest_seen: u8,
    /// For each name that is known the number of its latest entry in the table: most fields of a response are those of
    /// the response before it.
    latest: [u32; FieldName::COUNT],
    /// A name in lower case.
    name: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder {
            table: DynamicTable::new(TABLE_SIZE),
            announce: None,
            seen: [0; REMEMBERED],
            oldest_seen: 0,
            latest: [0; FieldName::COUNT],
            name: Vec::new(),
        }
    }
}

impl Encoder {
    /// The dynamic table.
    pub fn table(&self) -> &DynamicTable {
        &self.table
    }

    /// Takes the peer's SETTINGS_HEADER_TABLE_SIZE; of a larger table than [`TABLE_SIZE`] that much is used.
    pub fn set_max_table_size(&mut self, size: u32) {
        let size = (size as usize).min(TABLE_SIZE);
        if size != self.table.max_size() || self.announce.is_some() {
            let least = self.announce.map_or(size, |least| least.min(size));
            self.announce = Some(least);
            self.table.set_max_size(size);
        }
    }

    /// Begins a block: says which table size holds from here on, if it changed.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(least) = self.announce.take() {
            let size = self.table.max_size();
            if least < size {
                integer(least, 0x20, 5, out);
            }
            integer(size, 0x20, 5, out);
        }
    }

    /// Appends `:status`.
    pub fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        let index = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                return self.field(
                    b":status",
                    itoa::Buffer::new().format(status).as_bytes(),
                    Indexing::Repeated,
                    out,
                );
            }
        };
        out.push(0x80 | index);
    }

    /// Appends a field by its place in the table, if the latest one with this name had the same value and went there.
    /// Whatever went there may be sent.
    #[inline]
    pub fn again(&mut self, id: FieldName, value: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(&number) = self.latest.get(id as usize) else { return false };
        let Some(age) = self.table.age_of(number, id.lower_case(), value) else { return false };
        integer(STATIC_TABLE.len() + 1 + age, 0x80, 7, out);
        true
    }

    /// Appends a field whose name is known.
    pub fn known(&mut self, id: FieldName, value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        if let Some(age) = self.lower_case_field(id.lower_case(), value, indexing, out)
            && let Some(latest) = self.latest.get_mut(id as usize)
        {
            *latest = self.table.number_of(age);
        }
    }

    /// Appends a field. The name is written in lower case; the value as it is.
    pub fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        let mut lower = std::mem::take(&mut self.name);
        lower.clear();
        lower.extend(name.iter().map(u8::to_ascii_lowercase));
        self.lower_case_field(&lower, value, indexing, out);
        self.name = lower;
    }

    /// Appends a field whose name is in lower case. Returns its age in the dynamic table, if it is there now.
    pub fn lower_case_field(
        &mut self,
        name: &[u8],
        value: &[u8],
        indexing: Indexing,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let name_index = match static_table::find(name, value) {
            StaticMatch::Whole(index) => {
                out.push(0x80 | index);
                return None;
            }
            StaticMatch::Name(index) => usize::from(index),
            StaticMatch::None => 0,
        };
        if indexing == Indexing::Never {
            literal(name_index, name, value, (0x10, 4), out);
            return None;
        }
        let hash = hash(name, value);
        if let Some(age) = self.table.find(name, value, hash) {
            integer(STATIC_TABLE.len() + 1 + age, 0x80, 7, out);
            return Some(age);
        }
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        // One large field must not drive out everything else.
        if self.came_before(hash) && size <= self.table.max_size() / 4 {
            self.table.insert(name, value, hash);
            literal(name_index, name, value, (0x40, 6), out);
            Some(0)
        } else {
            literal(name_index, name, value, (0x00, 4), out);
            None
        }
    }

    /// Whether a field with this hash came before, as far as that is remembered; from now on it is.
    fn came_before(&mut self, hash: u32) -> bool {
        if self.seen.contains(&hash) {
            return true;
        }
        self.seen[self.oldest_seen as usize % REMEMBERED] = hash;
        self.oldest_seen = self.oldest_seen.wrapping_add(1);
        false
    }
}

/// Not a secret: that two fields collide costs a comparison, or one entry of the table.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let mut hasher = FixedState::with_seed(0).build_hasher();
    hasher.write(name);
    hasher.write_u8(b':');
    hasher.write(value);
    let hash = hasher.finish();
    (hash ^ hash >> 32) as u32
}

/// A literal field: its kind and the bits of its index, then the name unless it is indexed, then the value.
fn literal(name_index: usize, name: &[u8], value: &[u8], (kind, prefix): (u8, u32), out: &mut Vec<u8>) {
    integer(name_index, kind, prefix, out);
    if name_index == 0 {
        string(name, out);
    }
    string(value, out);
}

/// A string, in the Huffman code where that is shorter.
fn string(text: &[u8], out: &mut Vec<u8>) {
    let coded = huffman::encoded_length(text);
    if coded < text.len() {
        integer(coded, 0x80, 7, out);
        huffman::encode(text, out);
    } else {
        integer(text.len(), 0x00, 7, out);
        out.extend_from_slice(text);
    }
}

/// An integer with a prefix of so many bits (RFC 7541 section 5.1), behind the bits of `kind`.
fn integer(value: usize, kind: u8, prefix: u32, out: &mut Vec<u8>) {
    let most = (1usize << prefix) - 1;
    if value < most {
        out.push(kind | value as u8);
        return;
    }
    out.push(kind | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
