//! Field blocks to field lines.

use std::fmt;

use crate::message::{Fields, Span};
use crate::proto::h2::huffman;

use super::static_table::STATIC_TABLE;
use super::{DynamicTable, ENTRY_OVERHEAD};

/// A block that can't be decoded: the tables of both sides no longer agree, the connection has to go
/// (RFC 9113 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends within a field.
    Truncated,
    /// An integer of more than 32 bits, or of more bytes than these take.
    IntegerTooLarge,
    /// Index 0, or one behind the end of both tables.
    InvalidIndex,
    /// A string that is no Huffman code.
    InvalidHuffman,
    /// A size update that is larger than what SETTINGS allow.
    TableTooLarge,
    /// A size update behind a field (RFC 7541 section 4.2).
    LateSizeUpdate,
    /// Far more fields than are kept: small references to large entries, say. There is no error in it, but working through
    /// the rest would cost more than the connection is worth.
    TooManyFields,
}

impl HpackError {
    /// For the log.
    pub fn description(self) -> &'static str {
        match self {
            HpackError::Truncated => "peer sent a truncated field block",
            HpackError::IntegerTooLarge => "peer sent a field block with too large an integer",
            HpackError::InvalidIndex => "peer sent a field block with an invalid index",
            HpackError::InvalidHuffman => "peer sent a field block with an invalid Huffman code",
            HpackError::TableTooLarge => "peer sent a table size update beyond SETTINGS_HEADER_TABLE_SIZE",
            HpackError::LateSizeUpdate => "peer sent a table size update behind a field",
            HpackError::TooManyFields => "peer sent a field block with far too many fields",
        }
    }
}

impl fmt::Display for HpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description())
    }
}

impl std::error::Error for HpackError {}

/// What a list of fields may still take. Once something does not fit, everything behind it is decoded for the tables'
/// sake only and not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of names and values, each field 32 more (RFC 9113 section 6.5.2).
    pub list: usize,
    /// Most bytes of one name, and of one value.
    pub string: usize,
    /// Fields.
    pub count: u32,
}

/// What `next` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A field; its text is in the fields that were passed, not yet among their lines.
    Field {
        /// The name.
        name: Span,
        /// The value.
        value: Span,
    },
    /// A field that exceeds the budget, or comes behind one that did.
    TooLarge,
    /// The block is complete.
    End,
}

/// The receiving side's tables.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
    /// What SETTINGS_HEADER_TABLE_SIZE allows.
    allowed_size: usize,
    scratch: Fields,
}

/// A string within the block.
#[derive(Clone, Copy)]
struct Literal<'b> {
    is_huffman: bool,
    bytes: &'b [u8],
}

/// Where a field's name comes from.
#[derive(Clone, Copy)]
enum Name<'b> {
    Index(usize),
    Literal(Literal<'b>),
}

impl Decoder {
    /// A decoder whose peer may use `allowed_size` bytes of table.
    pub fn new(allowed_size: usize) -> Decoder {
        let table = DynamicTable::new(allowed_size.min(super::TABLE_SIZE));
        Decoder { table, allowed_size, scratch: Fields::default() }
    }

    /// The dynamic table.
    pub fn table(&self) -> &DynamicTable {
        &self.table
    }

    /// Takes the next field from the front of `block`. `is_first` says that no field of this block came before. The text
    /// goes to `fields`; with `budget.count` 0 nothing is kept any more.
    ///
    /// # Errors
    /// The block is broken, and with it the connection's state.
    pub fn next(
        &mut self,
        block: &mut &[u8],
        is_first: bool,
        fields: &mut Fields,
        budget: &mut Budget,
    ) -> Result<Decoded, HpackError> {
        loop {
            let Some(&first) = block.first() else { return Ok(Decoded::End) };
            if first & 0x80 != 0 {
                let index = integer(block, 7)?;
                return self.indexed(index, fields, budget);
            }
            if first & 0xe0 == 0x20 {
                let size = integer(block, 5)?;
                if !is_first {
                    return Err(HpackError::LateSizeUpdate);
                }
                if size > self.allowed_size {
                    return Err(HpackError::TableTooLarge);
                }
                self.table.set_max_size(size);
                continue;
            }
            let is_indexed = first & 0x40 != 0;
            let index = integer(block, if is_indexed { 6 } else { 4 })?;
            let name = if index > 0 { Name::Index(index) } else { Name::Literal(literal(block)?) };
            let value = literal(block)?;
            return self.literal_field(name, value, is_indexed, fields, budget);
        }
    }

    fn indexed(&self, index: usize, fields: &mut Fields, budget: &mut Budget) -> Result<Decoded, HpackError> {
        let (name, value) = self.entry(index)?;
        if !budget.take(name.len(), value.len()) {
            return Ok(Decoded::TooLarge);
        }
        Ok(Decoded::Field { name: fields.store(name), value: fields.store(value) })
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        let place = index.checked_sub(1).ok_or(HpackError::InvalidIndex)?;
        match STATIC_TABLE.get(place) {
            Some(&entry) => Ok(entry),
            None => self.table.get(place - STATIC_TABLE.len()).ok_or(HpackError::InvalidIndex),
        }
    }

    fn literal_field(
        &mut self,
        name: Name<'_>,
        value: Literal<'_>,
        is_indexed: bool,
        fields: &mut Fields,
        budget: &mut Budget,
    ) -> Result<Decoded, HpackError> {
        // Text that can't be kept is still decoded: an error in it counts, and the table may want it. It is no longer
        // than 8/5 of the block, which is bounded.
        let keeps = budget.count > 0;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let target = if keeps { &mut *fields } else { &mut scratch };
        let result = self.store(name, value, target);
        let decoded = match result {
            Err(error) => Err(error),
            Ok((name_span, value_span)) => {
                if is_indexed {
                    self.table.insert(target.get(name_span), target.get(value_span), 0);
                }
                if keeps && budget.take(name_span.len(), value_span.len()) {
                    Ok(Decoded::Field { name: name_span, value: value_span })
                } else {
                    Ok(Decoded::TooLarge)
                }
            }
        };
        self.scratch = scratch;
        decoded
    }

    fn store(
        &self,
        name: Name<'_>,
        value: Literal<'_>,
        target: &mut Fields,
    ) -> Result<(Span, Span), HpackError> {
        let name = match name {
            Name::Index(index) => target.store(self.entry(index)?.0),
            Name::Literal(literal) => literal.store(target)?,
        };
        Ok((name, value.store(target)?))
    }
}

impl Budget {
    /// Takes the room for a field. Once there is none, there is none for any other.
    fn take(&mut self, name: usize, value: usize) -> bool {
        let size = name + value + ENTRY_OVERHEAD;
        if self.count == 0 || name > self.string || value > self.string || size > self.list {
            self.count = 0;
            return false;
        }
        self.list -= size;
        self.count -= 1;
        true
    }
}

impl Literal<'_> {
    fn store(self, target: &mut Fields) -> Result<Span, HpackError> {
        if !self.is_huffman {
            return Ok(target.store(self.bytes));
        }
        let (span, result) = target.store_with(|text| huffman::decode(self.bytes, text));
        result.map(|()| span).map_err(|huffman::InvalidCode| HpackError::InvalidHuffman)
    }
}

/// An integer with a prefix of so many bits (RFC 7541 section 5.1), at most 32 bits long.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, HpackError> {
    let (&first, mut rest) = block.split_first().ok_or(HpackError::Truncated)?;
    let most = (1u32 << prefix) - 1;
    let mut value = u64::from(u32::from(first) & most);
    if value == u64::from(most) {
        let mut shift = 0;
        loop {
            let (&byte, behind) = rest.split_first().ok_or(HpackError::Truncated)?;
            rest = behind;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            // Five bytes say all that fits in 32 bits; more of them are zeros written at length.
            if shift > 28 {
                return Err(HpackError::IntegerTooLarge);
            }
        }
    }
    *block = rest;
    u32::try_from(value).map(|value| value as usize).map_err(|_| HpackError::IntegerTooLarge)
}

fn literal<'b>(block: &mut &'b [u8]) -> Result<Literal<'b>, HpackError> {
    let is_huffman = block.first().ok_or(HpackError::Truncated)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *block = rest;
    Ok(Literal { is_huffman, bytes })
}
